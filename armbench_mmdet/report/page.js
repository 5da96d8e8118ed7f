'use strict';
// Without this script the page still has every table and picture; what needs it is hidden by the style sheet.
document.documentElement.classList.add('js');

const PRINT_WIDTH_PX = 680;
const axis = { gridcolor: '#e3e6ea', linecolor: '#8a929c', showline: true, ticks: 'outside', zeroline: false, automargin: true };
const LOOKS = {
  margin: { l: 60, r: 20, t: 20, b: 50 },
  paper_bgcolor: '#ffffff',
  plot_bgcolor: '#ffffff',
  font: { family: 'system-ui, sans-serif', size: 13, color: '#1c2430' },
  legend: { orientation: 'h', y: -0.28, yanchor: 'top', x: 0 },
  hovermode: 'closest',
  xaxis: { ...axis, title: { standoff: 8 } },
  yaxis: { ...axis, title: { standoff: 12 }, rangemode: 'tozero' },
};
const canvases = [...document.querySelectorAll('figure.plot .canvas')];
const folds = [...document.querySelectorAll('details.fold')];

function draw(parent) {
  for (const canvas of parent.querySelectorAll('figure.plot .canvas')) {
    if (canvas.classList.contains('js-plotly-plot') || canvas.closest('details:not([open])')) continue;
    const figure = JSON.parse(canvas.parentElement.querySelector('script').textContent);
    Plotly.newPlot(canvas, figure.data, { template: { layout: LOOKS }, ...figure.layout }, {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ['lasso2d', 'select2d'],
      toImageButtonOptions: { format: 'svg' },
    });
  }
}

// A folded part is drawn when it is opened, which a link to it does.
const open = () => document.querySelector(`${location.hash || '#answer'} > details.fold`)?.setAttribute('open', '');
window.addEventListener('hashchange', open);
for (const fold of folds) fold.addEventListener('toggle', () => draw(fold));
open();
draw(document);

window.addEventListener('beforeprint', () => {
  for (const fold of folds) fold.open = true;
  draw(document);
  for (const canvas of canvases) Plotly.relayout(canvas, { width: PRINT_WIDTH_PX });
});
window.addEventListener('afterprint', () => {
  for (const canvas of canvases) Plotly.relayout(canvas, { width: null, autosize: true });
});

const filters = document.getElementById('filters');
if (filters) {
  const pictures = [...document.querySelectorAll('#pictures figure.picture')];
  const show = () => {
    const wanted = [...new FormData(filters)].filter(([, value]) => value);
    let shown = 0;
    for (const picture of pictures) {
      picture.hidden = wanted.some(([name, value]) => picture.dataset[name] !== value);
      shown += picture.hidden ? 0 : 1;
    }
    document.getElementById('shown').textContent = `${shown} of ${pictures.length} pictures`;
  };
  filters.addEventListener('change', show);
  filters.addEventListener('submit', (event) => event.preventDefault());
  show();
}
