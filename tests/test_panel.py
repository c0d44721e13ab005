"The panel does what its methods do, and says what is wrong"
import pytest
from test_files import SIX

def test_the_buttons(tmp_path):
    pytest.importorskip('ipywidgets')
    from bayes_prompt.panel import TuningPanel, without_prompt
    SIX['d.csv'](tmp_path/'d.csv')
    panel = TuningPanel(tmp_path/'d.csv', 'tiny-t5', steps=2, length=4, **{'data.limit': 8, 'target.judge_rows': 4})
    look, tune, compare = panel.widget.children[1].children[1:4]
    compare.click()
    assert 'tune first' in panel.said.value
    look.click()
    assert 'comment' in panel.said.value
    tune.click()
    panel.new.value = 'soup\n\nbread'
    compare.click()
    assert panel.bar.value == 2 and panel.answers.value.count('<tr>') == 2
    assert without_prompt(panel.tuned).predict(['soup']) == [without_prompt(panel.tuned).predict(['soup', 'x'])[0]]
    panel.path.value = str(tmp_path/'<b>.csv')
    look.click()
    assert 'no file' in panel.said.value and '&lt;b&gt;' in panel.said.value
