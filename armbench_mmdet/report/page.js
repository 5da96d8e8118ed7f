'use strict';
// Without this script the page still has every table and picture; what needs it is hidden by the style sheet.
document.documentElement.classList.add('js');

const PRINT_WIDTH_PX = 680;
const canvases = [...document.querySelectorAll('figure.plot .canvas')];

for (const canvas of canvases) {
  const figure = JSON.parse(canvas.parentElement.querySelector('script').textContent);
  Plotly.newPlot(canvas, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ['lasso2d', 'select2d'],
    toImageButtonOptions: { format: 'svg' },
  });
}

window.addEventListener('beforeprint', () => {
  for (const canvas of canvases) Plotly.relayout(canvas, { width: PRINT_WIDTH_PX });
});
window.addEventListener('afterprint', () => {
  for (const canvas of canvases) Plotly.relayout(canvas, { width: null, autosize: true });
});

const filters = document.getElementById('filters');
if (filters) {
  const pictures = [...document.querySelectorAll('figure.picture')];
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
