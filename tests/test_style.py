"Every method has a look of its own, and naming one brings neither torch nor matplotlib"
import subprocess, sys

from bayes_prompt.options import methods
from bayes_prompt.style import PALETTE, _LOOKS, colour, marker, use_style


def test_every_method_has_a_look_of_its_own():
    assert set(methods()) <= set(_LOOKS)
    looks = [(colour(m), marker(m)) for m in _LOOKS]
    assert len(set(looks)) == len(looks)

def test_an_unknown_method_has_a_fixed_look():
    code = "from bayes_prompt.style import colour, marker; print(colour('mine'), marker('mine'))"
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert out == [colour('mine'), marker('mine')] and out[0] in PALETTE.values()

def test_a_look_is_light():
    code = "import sys, bayes_prompt.style; print({'torch', 'matplotlib', 'seaborn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'set()'

def test_figures_take_the_style():
    import matplotlib.pyplot as plt
    with plt.rc_context():
        use_style()
        plt.figure()
        assert plt.plot([0, 1])[0].get_color() == PALETTE['blue']
        plt.close('all')
