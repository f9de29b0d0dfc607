// Return the texts on the screen that stand out too little from what is behind them, each with its
// contrast, by the rule of WCAG 2.1 (1.4.3): 4.5, or 3 where letters are large.
() => {
  const rgba = (colour) => {
    const parts = colour.match(/[\d.]+/g).map(Number);
    return [...parts.slice(0, 3), parts[3] ?? 1];
  };
  const blend = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const luminance = (colour) =>
    colour
      .map((part) => part / 255)
      .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const background = (node) => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) layers.push(rgba(getComputedStyle(n).backgroundColor));
    return layers.reduceRight((below, layer) => blend(layer, below), [255, 255, 255]);
  };
  const text = (node) =>
    node.matches("input:not([type=checkbox], [type=radio], [type=range], [type=file]), textarea")
      ? node.value
      : [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join("").trim();
  const pale = {};
  for (const node of document.querySelectorAll(".gradio-container *:not(.icon)")) {
    const { width, height } = node.getBoundingClientRect();
    const visible = node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!visible || width < 4 || height < 4 || !text(node)) continue;
    const style = getComputedStyle(node);
    const below = background(node);
    const front = blend(rgba(node.closest("svg") ? style.fill : style.color), below);
    const [dark, light] = [luminance(front), luminance(below)].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < (large ? 3 : 4.5)) pale[text(node)] = contrast;
  }
  return pale;
}
