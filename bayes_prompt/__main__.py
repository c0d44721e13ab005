"`python -m bayes_prompt` is `bp`"
from .commands import bp

if __name__ == '__main__': bp()
