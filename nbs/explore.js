// Explorables: two tasks' product (03_gaussian) and SVGD (04_svgd). No dependencies. `tests/test_explore.py` checks the numbers
// against the Python functions, in node or Chromium; the drawing of the first state is the image shown where no script runs.
const Explore = (() => {
  'use strict'
  const BLUE = '#0072B2', GREEN = '#009E73', RED = '#D55E00', PURPLE = '#CC79A7', GREY = '#7F7F7F'
  const TASKS = [BLUE, GREEN, '#E69F00', '#56B4E9', PURPLE]

  // ---- two dimensions: vectors [x, y], symmetric matrices [a, b, c] for [[a, b], [b, c]]
  const inv = ([a, b, c]) => { const d = a*c - b*b; return [c/d, -b/d, a/d] }
  const mul = ([a, b, c], [x, y]) => [a*x + b*y, b*x + c*y]
  const add = (u, v) => u.map((x, i) => x + v[i])
  const sub = (u, v) => u.map((x, i) => x - v[i])
  const scale = (s, u) => u.map(x => s*x)
  const dot = (u, v) => u[0]*v[0] + u[1]*v[1]
  const cross = (o, a, b) => (a[0] - o[0])*(b[1] - o[1]) - (a[1] - o[1])*(b[0] - o[0])

  // ---- Gaussians: {mean, cov}
  const ridge = (degrees, distance, long, short) => { // as `ridge` of the pages
    const t = degrees*Math.PI/180, [c, s] = [Math.cos(t), Math.sin(t)], [l, m] = [long*long, short*short]
    return { mean: [distance*c, distance*s], cov: [l*c*c + m*s*s, (l - m)*c*s, l*s*s + m*c*c] }
  }
  const product = gs => { // precisions add up, and so do precision times mean
    const precision = gs.map(g => inv(g.cov)).reduce(add), pull = gs.map(g => mul(inv(g.cov), g.mean)).reduce(add)
    const cov = inv(precision)
    return { mean: mul(cov, pull), cov, precision }
  }
  const energy = (p, x) => { const d = sub(x, p.mean); return dot(d, mul(p.precision, d))/2 }
  const hull = points => { // anticlockwise
    const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1])
    const half = list => list.reduce((h, p) => {
      while (h.length > 1 && cross(h[h.length - 2], h[h.length - 1], p) <= 0) h.pop()
      return [...h, p]
    }, []).slice(0, -1)
    return [...half(sorted), ...half(sorted.reverse())]
  }
  const bestCombination = (p, points) => { // the point of the hull with the least energy
    const h = hull(points)
    if (h.length > 2 && h.every((a, i) => cross(a, h[(i + 1) % h.length], p.mean) >= 0)) return p.mean
    const on = (a, b) => { // least on the segment from a to b
      const d = sub(b, a), dd = dot(d, mul(p.precision, d))
      return add(a, scale(dd ? Math.min(1, Math.max(0, dot(d, mul(p.precision, sub(p.mean, a)))/dd)) : 0, d))
    }
    return points.flatMap((a, i) => points.slice(0, i + 1).map(b => on(a, b))).reduce((x, y) => energy(p, y) < energy(p, x) ? y : x)
  }
  const gaussian = ({ angle, condition, tasks }) => { // condition: log10 of the ratio of variances
    const short = 4/10**(condition/2)
    const gs = Array.from({ length: tasks }, (_, k) => ridge(k*angle, 4, 4, short))
    const p = product(gs), optima = gs.map(g => g.mean), average = scale(1/tasks, optima.reduce(add)), best = bestCombination(p, optima)
    return { gs, p, optima, average, best, atAverage: energy(p, average), atBest: energy(p, best) }
  }

  // ---- SVGD with the Gaussian kernel
  const median = v => { const s = [...v].sort((a, b) => a - b), n = s.length; return n % 2 ? s[(n - 1)/2] : (s[n/2 - 1] + s[n/2])/2 }
  const direction = (x, score, { width, repulsion }) => { // width: times the median heuristic
    const M = x.length, pairs = x.flatMap((a, i) => x.slice(0, i).map(b => dot(sub(a, b), sub(a, b))))
    const h = M > 1 ? width*median(pairs)/Math.log(M) : 1, s = x.map(score)
    return x.map(xi => scale(1/M, x.map((xj, j) => {
      const d = sub(xj, xi), k = h > 0 ? Math.exp(-dot(d, d)/h) : 1
      return add(scale(k, s[j]), scale(h > 0 ? -2*k*repulsion/h : 0, d))
    }).reduce(add)))
  }
  const start = M => Array.from({ length: M }, (_, i) => { // sunflower seeds around one spot
    const r = .3*Math.sqrt((i + .5)/M), t = 2.399963*i
    return [-.3 + r*Math.cos(t), .65 + r*Math.sin(t)]
  })
  const TARGET = product([ridge(0, 3, 3, .3), ridge(40, 3, 3, .3)])
  const svgd = ({ particles, width, repulsion }, steps = 200, lr = .05) => {
    const score = x => mul(TARGET.precision, sub(TARGET.mean, x)), path = [start(particles)]
    for (let t = 0; t < steps; t++) {
      const x = path[t], phi = direction(x, score, { width, repulsion })
      path.push(x.map((xi, i) => add(xi, scale(lr, phi[i]))))
    }
    return path
  }
  const variance = x => { const m = scale(1/x.length, x.reduce(add)); return x.reduce((v, xi) => v + dot(sub(xi, m), sub(xi, m)), 0)/x.length }

  // ---- drawings: SVG as text
  const board = (xlim, ylim, width, label, body) => {
    const unit = width/(xlim[1] - xlim[0]), height = unit*(ylim[1] - ylim[0])
    const at = ([x, y]) => [(x - xlim[0])*unit, (ylim[1] - y)*unit].map(v => v.toFixed(1))
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height.toFixed(0)}" role="img" aria-label="${label}" font-family="sans-serif" font-size="13">${body(at, unit)}</svg>`
  }
  const ellipse = (at, unit, g, r, colour) => {
    const [a, b, c] = g.cov, mid = (a + c)/2, off = Math.hypot((a - c)/2, b), turn = Math.atan2(2*b, a - c)/2*180/Math.PI
    const [x, y] = at(g.mean), [rx, ry] = [mid + off, Math.max(0, mid - off)].map(v => (r*Math.sqrt(v)*unit).toFixed(1))
    return `<ellipse cx="${x}" cy="${y}" rx="${rx}" ry="${ry}" transform="rotate(${(-turn).toFixed(2)} ${x} ${y})" fill="none" stroke="${colour}" stroke-width="1.5"/>`
  }
  const star = ([x, y], colour) => `<path transform="translate(${x} ${y})" d="M0-9 2.6-2.8 9-2.8 3.9 1.3 5.8 8 0 4-5.8 8-3.9 1.3-9-2.8-2.6-2.8Z" fill="${colour}"/>`
  const text = ([x, y], dx, dy, words) => `<text x="${(+x + dx).toFixed(1)}" y="${(+y + dy).toFixed(1)}" fill="currentColor">${words}</text>`
  const nats = e => e < 10 ? e.toFixed(2) : e.toFixed(0)
  const DRAW = {
    gaussian(state) {
      const { gs, p, optima, average, best, atAverage, atBest } = gaussian(state)
      const said = `Average of the optima: ${nats(atAverage)} nats above the product's mode; best weighting: ${nats(atBest)} nats`
      return { said, svg: board([-6.5, 6.5], [-4.2, 5.4], 640, said, (at, unit) => [
        `<polygon points="${hull(optima).map(x => at(x).join()).join(' ')}" fill="${GREY}" fill-opacity=".18" stroke="${GREY}" stroke-dasharray="2 4"/>`,
        ...gs.map((g, k) => ellipse(at, unit, g, 1, TASKS[k])), ...optima.map((x, k) => star(at(x), TASKS[k])),
        ...[[average, 'average', -5], [best, 'best weighting', 12]].map(([x, words, dy], i) => {
          const [u, v] = at(x)
          return (i ? `<circle cx="${u}" cy="${v}" r="7" fill="none" stroke="${PURPLE}" stroke-width="2.5"/>` : `<rect x="${u - 5}" y="${v - 5}" width="10" height="10" fill="currentColor"/>`) + text(at(x), 11, dy, words)
        }),
        `<path transform="translate(${at(p.mean).join(' ')})" d="M0-8 8 7H-8Z" fill="${RED}"/>`, text(at(p.mean), -46, 24, 'product’s mode')].join('') ) }
    },
    svgd({ step, ...state }, path = svgd(state)) {
      const x = path[Math.min(step, path.length - 1)]
      const said = `Step ${step}: variance of the particles ${variance(x).toFixed(3)}, of the target ${(TARGET.cov[0] + TARGET.cov[2]).toFixed(3)}`
      return { said, svg: board([-1.1, 1.5], [-.8, 1.1], 640, said, (at, unit) => [
        ...[1, 2].map(r => ellipse(at, unit, TARGET, r, GREY)), star(at(TARGET.mean), RED),
        ...x.map((_, i) => `<polyline points="${path.slice(0, step + 1).map(y => at(y[i]).join()).join(' ')}" fill="none" stroke="${GREY}" stroke-opacity=".6"/>`),
        ...x.map(y => { const [u, v] = at(y); return `<circle cx="${u}" cy="${v}" r="5" fill="${BLUE}"/>` }),
        text(at(TARGET.mean), 10, 4, 'mode')].join('') ) }
    },
  }

  // ---- controls: name, label, least, most, step, start, what is shown
  const CONTROLS = {
    gaussian: [['angle', 'Angle between tasks', 0, 120, 5, 60, v => `${v}°`], ['condition', 'Condition', 0, 4, .25, 2.5, v => `10^${v}`], ['tasks', 'Tasks', 2, 5, 1, 3, v => v]],
    svgd: [['particles', 'Particles', 1, 20, 1, 5, v => v], ['width', 'Bandwidth, times the median', -2, 2, .25, 0, v => `${(10**v).toPrecision(2)}`], ['repulsion', 'Repulsion', 0, 2, .1, 1, v => v], ['step', 'Step', 0, 200, 1, 200, v => v]],
  }
  const first = kind => Object.fromEntries(CONTROLS[kind].map(([name, , , , , value]) => [name, name === 'width' ? 10**value : value]))
  const still = kind => DRAW[kind](first(kind)).svg

  const mount = root => {
    const kind = root.dataset.explore, state = first(kind), picture = root.querySelector('.explore-picture')
    const make = (tag, attrs, ...inside) => { const el = Object.assign(document.createElement(tag), attrs); el.append(...inside); return el }
    const panel = make('div', { className: 'explore-controls' }), said = make('p', { className: 'explore-said' }), sliders = {}
    said.setAttribute('aria-live', 'polite')
    let path
    const show = () => { const { svg, said: words } = DRAW[kind](state, path); picture.innerHTML = svg; said.textContent = words }
    const set = (name, v) => {
      state[name] = name === 'width' ? 10**v : +v
      sliders[name].output.textContent = sliders[name].words(+v)
      if (kind === 'svgd' && name !== 'step') path = svgd(state)
      show()
    }
    for (const [name, label, min, max, step, value, words] of CONTROLS[kind]) {
      const input = make('input', { type: 'range', name, min, max, step, value }), output = make('output', { textContent: words(value) })
      sliders[name] = { input, output, words }
      input.addEventListener('input', () => set(name, input.value))
      panel.append(make('label', {}, make('span', { textContent: label }), input, output))
    }
    if (kind === 'svgd') {
      const button = make('button', { type: 'button', textContent: 'Play' }), { input } = sliders.step
      let timer
      const stop = () => { clearInterval(timer); timer = 0; button.textContent = 'Play' }
      const move = t => { input.value = t; set('step', t); if (t >= input.max) stop() }
      button.addEventListener('click', () => {
        if (timer) return stop()
        if (matchMedia('(prefers-reduced-motion: reduce)').matches) return move(+input.value < input.max ? +input.max : 0)    // end or beginning, without the motion
        if (+input.value >= input.max) move(0)
        button.textContent = 'Pause'
        timer = setInterval(() => move(+input.value + 1), 30)
      })
      panel.append(button)
      path = svgd(state)
    }
    picture.after(panel, said)
    root.classList.add('explore-live')
    show()
  }
  if (typeof document !== 'undefined') document.querySelectorAll('.explorable').forEach(mount)
  return { gaussian, svgd, start, direction, variance, still, first, TARGET }
})()
if (typeof module !== 'undefined') module.exports = Explore
