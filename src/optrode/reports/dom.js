"use strict";
// Elements are made with text only: nothing from a record is ever parsed as markup.
const dom = (() => {
  const make = (tag, words = "", kind = "") => {
    const element = document.createElement(tag);
    element.textContent = words;
    if (kind) element.className = kind;
    return element;
  };
  const draw = (tag, attributes, words = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (words) element.textContent = words;
    return element;
  };
  // Scripts that draw figures of their own add to `painters`, which run again when the colours change.
  return { make, draw, painters: [], data: JSON.parse(document.getElementById("data").textContent) };
})();
