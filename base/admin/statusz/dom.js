// Elements that are made once and then kept up to date. Text goes into text nodes alone: nothing
// that a daemon says is ever read as markup.

const byId = (id) => document.getElementById(id);

// An element with attributes and children, which may be text.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Leaves a node alone that says so already: what is selected or read out stays as it is.
function setText(node, text) {
  const wanted = String(text ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
}

function setAttribute(node, name, value) {
  if (value === undefined || value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

const setShare = (node, name, fraction) =>
  node.style.setProperty(name, `${(fraction * 100).toFixed(2)}%`);

// Makes the children of `parent` those of `items`, by key: nodes of items that stay are kept, with
// their focus. `create` gives a node; `update` brings it up to date.
function keep(parent, items, keyOf, create, update) {
  const former = new Map();
  for (const child of parent.children) former.set(child.dataset.key, child);
  items.forEach((item, index) => {
    const key = String(keyOf(item));
    const node = former.get(key) ?? create(item);
    node.dataset.key = key;
    former.delete(key);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
    update(node, item);
  });
  for (const node of former.values()) node.remove();
}

// Pairs of a term and what it says, as a list of definitions.
function keepFacts(list, facts) {
  keep(list, facts.filter((fact) => fact !== null), (fact) => fact.name,
    (fact) => make("div", {}, make("dt", {}, fact.name), make("dd")),
    (node, fact) => {
      setText(node.lastChild, fact.value);
      setAttribute(node.lastChild, "title", fact.title);
      setAttribute(node, "data-tone", fact.tone);
    });
}

// A state in a word, with a shape beside it, so that it is told without colour.
const makeState = () =>
  make("span", {class: "state"}, make("span", {class: "shape", "aria-hidden": "true"}),
    make("span"));

function setState(node, state) {
  setAttribute(node, "data-tone", state.tone);
  setText(node.firstChild, SHAPES[state.tone]);
  setText(node.lastChild, state.word);
}

const SHAPES = {ok: "●", busy: "◐", idle: "○", warn: "▲", bad: "✕"};
