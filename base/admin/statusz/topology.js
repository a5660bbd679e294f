// The picture: replicas, their epochs side by side, stages, and ranks in the grid of tp and cp.

const STEPS = [
  ["PREPARING", "prepare"], ["ACTIVATING", "take over"], ["RELEASING", "give back"]];

function makeReplica() {
  const node = make("section", {class: "card replica"});
  node.parts = {
    title: make("h2"), state: makeState(), about: make("p", {class: "about"}),
    trouble: make("ul", {class: "trouble", role: "alert"}), resize: makeResize(),
    epochs: make("div", {class: "epochs"}),
    groups: make("p", {class: "groups"}),
  };
  const {title, state, about, trouble, resize, epochs, groups} = node.parts;
  node.append(
    make("header", {}, title, state, about), trouble, resize, epochs, groups);
  return node;
}

function updateReplica(node, replica, view) {
  const parts = node.parts;
  setAttribute(node, "aria-label", `Replica ${replica.id}, ${replica.state.word}`);
  setAttribute(node, "data-tone", replica.state.tone);
  setText(parts.title, `Replica ${replica.id}`);
  setState(parts.state, replica.resize ? stateOf("RESIZING", "serving, resizing") : replica.state);
  setText(parts.about, aboutReplica(replica, view));
  show(parts.trouble, replica.trouble !== null);
  keep(parts.trouble, replica.trouble ?? [], (it) => it.what, makeTrouble, updateTrouble);
  show(parts.resize, replica.resize !== null);
  if (replica.resize) updateResize(parts.resize, replica.resize, view);
  setAttribute(parts.epochs, "data-count", replica.epochs.length);
  shareWidth(parts.epochs, replica.epochs.map((it) => Math.max(it.config.tp, it.config.cp)));
  keep(parts.epochs, replica.epochs, (it) => it.epoch, makeEpoch, updateEpoch);
  showGroups(node);
}

// So that ranks of both epochs are equally wide, as far as that goes.
function shareWidth(node, columns) {
  const least = Math.max(...columns) / 3;
  columns.forEach((count, index) =>
    node.style.setProperty(`--epoch-${index}`, `${Math.max(count, least)}fr`));
}

function aboutReplica(replica, view) {
  const first = replica.epochs[0];
  if (!first) return "no topology yet";
  const lasts = replica.since ? `, for ${since(replica.since, view.daemon.time)}` : "";
  return `epoch ${first.epoch} ${first.role}${lasts}`;
}

const makeTrouble = () => make("li", {}, make("strong"), make("span"));

function updateTrouble(node, trouble) {
  setAttribute(node, "data-tone", trouble.waits ? "idle" : "bad");
  setText(node.children[0], trouble.what);
  setText(node.children[1], trouble.text);
}

function makeResize() {
  const node = make("div", {class: "resize"}, make("strong"), make("ol"), make("span"));
  return node;
}

function updateResize(node, resize, view) {
  const [title, steps, took] = node.children;
  setText(title, resize.summary);
  setText(took, since(resize.started, view.daemon.time));
  const now = STEPS.findIndex(([stage]) => stage === resize.stage);
  keep(steps, STEPS, ([stage]) => stage, () => make("li"), (step, [stage, word]) => {
    const at = STEPS.findIndex((it) => it[0] === stage);
    setAttribute(step, "data-step", at < now ? "done" : at === now ? "now" : "later");
    setAttribute(step, "aria-current", at === now ? "step" : null);
    setText(step, word);
  });
}

const makeEpoch = () =>
  make("div", {class: "epoch"},
    make("h3", {}, make("b"), make("span", {class: "epoch-role"}), make("span", {class: "sizes"})),
    make("div", {class: "stages"}));

function updateEpoch(node, epoch) {
  const [number, role, size] = node.firstChild.children;
  setAttribute(node, "data-role", epoch.role);
  setText(number, `Epoch ${epoch.epoch}`);
  setText(role, epoch.role);
  setText(size, sizes(epoch.config));
  const stages = Array.from({length: epoch.config.pp}, (_, index) => ({
    index, many: epoch.config.pp > 1, config: epoch.config,
    ranks: epoch.ranks.filter((rank) => rank.pp === index),
  }));
  keep(node.lastChild, stages, (it) => it.index, makeStage, updateStage);
}

const makeStage = () =>
  make("div", {class: "stage", role: "group"}, make("h4"),
    make("div", {class: "heads", "aria-hidden": "true"}), make("div", {class: "rows"}));

// The longer of the two axes lies across: a row is a TP group, or a CP group.
function updateStage(node, stage) {
  const across = stage.config.tp > stage.config.cp ? "tp" : "cp";
  const down = across === "tp" ? "cp" : "tp";
  const columns = Array.from({length: stage.config[across]}, (_, at) => at);
  const ranks = rankList(stage.ranks.map((rank) => rank.rank));
  const label = `Stage ${stage.index}, ${stage.ranks.length > 1 ? "ranks" : "rank"} ${ranks}`;
  setAttribute(node, "aria-label", label);
  setText(node.firstChild, label);
  const split = stage.config[down] > 1;
  setAttribute(node, "data-split", split ? "yes" : null);
  node.style.setProperty("--columns", columns.length);
  keep(node.children[1], split ? columns : [], (at) => at, () => make("span", {class: "axis"}),
    (axis, at) => setText(axis, `${across} ${at}`));
  const rows = Array.from({length: stage.config[down]}, (_, at) => ({
    axis: split ? `${down} ${at}` : "", ranks: stage.ranks.filter((rank) => rank[down] === at)}));
  keep(node.lastChild, rows, (row) => row.axis, makeRow, updateRow);
}

const makeRow = () =>
  make("div", {class: "row"}, make("span", {class: "axis"}), make("div", {class: "ranks"}));

function updateRow(node, row) {
  setText(node.firstChild, row.axis);
  keep(node.lastChild, row.ranks, (rank) => rank.key, makeRank, updateRank);
}

// --- Groups: of the rank that is pointed at, or has the focus.

function showGroups(replica) {
  const chosen =
    replica.querySelector(".rank:focus-visible") ?? replica.querySelector(".rank:hover");
  const of = chosen?.facts;
  for (const node of replica.querySelectorAll(".rank")) {
    const same = of && node.facts.key.split("/")[0] === of.key.split("/")[0];
    const inTp = same && of.tpGroup.length > 1 && of.tpGroup.includes(node.facts.rank);
    const inCp = same && of.cpGroup.length > 1 && of.cpGroup.includes(node.facts.rank);
    setAttribute(node, "data-tp", inTp ? "yes" : null);
    setAttribute(node, "data-cp", inCp ? "yes" : null);
    setAttribute(node, "data-aside", of && !inTp && !inCp && node !== chosen ? "yes" : null);
  }
  const hint = "Point at a rank, or go there with Tab, to see its groups.";
  keep(replica.parts.groups, of ? groupsOf(of) : [{kind: "hint", text: hint}], (it) => it.kind,
    (it) => make("span", {"data-kind": it.kind}), (node, it) => setText(node, it.text));
}

const groupsOf = (rank) => [
  {kind: "rank", text: `Rank ${rank.rank}, worker ${rank.worker}`},
  {kind: "tp", text: `TP ${rankList(rank.tpGroup)}`},
  {kind: "cp", text: `CP ${rankList(rank.cpGroup)}`},
  {kind: "stage", text: `STAGE ${rankList(rank.stageGroup)}`},
];

function watchGroups(replicas) {
  for (const event of ["pointerover", "pointerleave", "focusin", "focusout"]) {
    // After the event, when :hover and :focus-visible say so.
    replicas.addEventListener(event, () => requestAnimationFrame(() => {
      for (const replica of replicas.children) showGroups(replica);
    }));
  }
}
