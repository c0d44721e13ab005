"Before torch is imported: threads that spin while they wait make two busy cores several times slower"
import os
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
