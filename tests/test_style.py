"Every method has a look of its own, and naming one brings neither torch nor matplotlib"
import subprocess, sys

from bayes_prompt.options import methods
from bayes_prompt.style import PALETTE, _LOOKS, _apart, colour, label_lines, marker, use_style


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

def test_labels_stand_beside_their_lines_and_apart():
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots(figsize=(4, 2))
    for name, y in dict(low=0, high=1, near=.99).items(): ax.plot([0, 1], [0, y], label=name)
    ax.plot([0, 1], [0, .5])    # without a label
    label_lines(ax)
    at = {t.get_text(): t.xy for t in ax.texts}
    assert set(at) == {'low', 'near', 'high'} and all(x == 1 and 0 <= y <= 1 for x, y in at.values())
    assert at['low'][1] < at['near'][1] and at['high'][1] - at['near'][1] > .1
    plt.close(fig)

def test_labels_of_many_lines_stay_in_order_within_the_axes():
    ys = _apart([.5]*4, .2)
    assert ys == sorted(ys) and ys[-1] <= 1 and min(b - a for a, b in zip(ys, ys[1:])) > .199

def test_a_figure_is_the_same_vector_in_every_run():
    import io
    import matplotlib.pyplot as plt
    def drawn():
        with plt.rc_context():
            use_style()
            fig, ax = plt.subplots()
            ax.plot([0, 1], marker='o')
            out = io.StringIO()
            fig.savefig(out, format='svg', metadata=dict(Date=None))
            plt.close(fig)
            return out.getvalue()
    assert drawn() == drawn()
