// What the pages need beside their text, under smalldocs and Quarto alike. No dependencies; without it the pages still read.
(() => {
  'use strict'
  const all = (s, root = document) => [...root.querySelectorAll(s)]
  const make = (tag, attrs = {}) => Object.assign(document.createElement(tag), attrs)

  // Formulas: as large as the text where they fit, smaller where they do not, and below SMALLEST in a scroll area
  const SMALLEST = .74
  const fit = formula => {
    const display = formula.closest('.katex-display')
    formula.style.fontSize = ''
    const size = parseFloat(getComputedStyle(formula).fontSize)
    const wanted = formula.scrollWidth, room = display.clientWidth
    if (wanted > room) formula.style.fontSize = `${size*Math.max(SMALLEST, .995*room/wanted)}px`
  }

  // What still scrolls sideways is a region that the keyboard reaches
  const WIDE = 'main pre, main .katex-display, main .math.display, main .cell-output-display, main .sd-table, main .table-responsive'
  const reach = el => {
    const scrolls = el.scrollWidth > el.clientWidth + 1 && getComputedStyle(el).overflowX !== 'visible'
    if (!scrolls) return ['tabindex', 'role', 'aria-label'].forEach(a => el.removeAttribute(a))
    el.tabIndex = 0
    el.setAttribute('role', 'region')
    el.setAttribute('aria-label', `${el.querySelector('table') ? 'Table' : el.tagName === 'PRE' ? 'Code' : 'Formula'} that scrolls sideways`)
  }

  // On a phone the contents stand below the title
  const contents = () => {
    const links = all('#TOC a'), title = document.querySelector('#title-block-header, .quarto-title-block')
    if (!title || links.length < 2) return
    const box = make('details', { className: 'phone-contents' }), list = make('ul')
    box.append(make('summary', { textContent: 'On this page' }), list)
    for (const a of links) {
      const item = make('li')
      item.append(make('a', { href: a.getAttribute('href'), textContent: a.textContent }))
      if (a.closest('ul ul')) item.className = 'sub'
      list.append(item)
    }
    title.after(box)
  }

  // The active page is in view in the sidebar
  const here = () => {
    const link = document.querySelector('.sidebar-link.active'), side = link && link.closest('.sidebar-navigation')
    if (side) side.scrollTop += link.getBoundingClientRect().top - side.getBoundingClientRect().top - side.clientHeight/3
  }

  const layout = () => {
    all('.katex-display > .katex').forEach(fit)
    all(WIDE).forEach(reach)
  }
  const label = (s, name) => all(s).forEach(el => el.getAttribute('aria-label') || el.setAttribute('aria-label', name))
  const begin = () => {
    label('.code-copy-button', 'Copy the code')
    label('.quarto-color-scheme-toggle', 'Light or dark')
    label('#quarto-sidebar', 'Pages')
    label('#quarto-margin-sidebar', 'On this page')
    const main = document.querySelector('main')
    if (main) main.tabIndex = -1    // so that the skip link moves the focus there
    contents()
    here()
    layout()
  }
  let timer
  addEventListener('resize', () => { clearTimeout(timer); timer = setTimeout(layout, 80) })
  addEventListener('load', () => { here(); layout(); document.fonts.ready.then(layout) })
  addEventListener('toggle', layout, true)    // an opened fold has a width only now
  begin()
})()
