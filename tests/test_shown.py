"What shows itself: escaped, the same facts in every form"
import torch
from bayes_prompt.shown import Shown
from bayes_prompt.source import SourcePosterior
from bayes_prompt.tasks import TASKS

class Odd(Shown):
    def facts(self): return {'<b>': 'a|b & c', 'none': None, 'number': .123456}

def test_it_is_escaped():
    assert '<b>' not in Odd()._repr_html_() and 'a|b &amp; c' in Odd()._repr_html_() and r'a\|b' in Odd()._repr_markdown_() and 'none' not in Odd().show()

def test_a_task_and_a_posterior():
    assert 'positive' in TASKS['movie']._repr_html_() and 'accuracy' in TASKS['movie']._repr_markdown_()
    post = SourcePosterior(torch.zeros(2, 3, 4), ['a', 'b'], 'mini', dict(steps=7), [dict(loss=1.)])
    assert post.facts()['particles'] == 2 and 'a, b' in post._repr_html_() and '7' in post.show()
