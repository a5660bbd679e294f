// The ledger: what each rank holds memory for; and the graphs.

// In the order in which they are drawn; what is in none of them comes last.
const TAGS = ["weights", "kv", "workspace", "activations", "graphs", "relay", "sampling", "resize"];

const kindOf = (tag) => TAGS.find((it) => tag.startsWith(it)) ?? "other";
const placeOfTag = (tag) => TAGS.concat("other").indexOf(kindOf(tag));

const byTag = (a, b) => placeOfTag(a) - placeOfTag(b) || a.localeCompare(b);
const sum = (values) => values.reduce((total, value) => total + value, 0);

function updateMemory(ledgers) {
  show(byId("memory"), ledgers.length > 0);
  const most = Math.max(...ledgers.map((it) => sum(Object.values(it.bytes))), 1);
  keep(byId("memory-bars"), ledgers, (it) => `${it.replica}/${it.epoch}/${it.rank}`,
    () => make("li", {}, make("span"), make("div", {class: "stack", "aria-hidden": "true"}),
      make("b")),
    (node, ledger) => updateBar(node, ledger, most, ledgers));
  const tags = [...new Set(ledgers.flatMap((it) => Object.keys(it.bytes)))].sort(byTag);
  keep(byId("ledger").tBodies[0], tags.concat(null), (tag) => tag ?? "\0sum", makeLedgerRow,
    (row, tag) => updateLedgerRow(row, tag, ledgers));
}

function updateBar(node, ledger, most, ledgers) {
  const [name, stack, total] = node.children;
  const several = new Set(ledgers.map((it) => it.replica)).size > 1;
  setText(name, (several ? `${ledger.replica}/` : "") + `${ledger.rank}`);
  setAttribute(name, "title", `rank ${ledger.rank}, ${ledger.worker}`);
  const entries = Object.entries(ledger.bytes).sort(([a], [b]) => byTag(a, b));
  keep(stack, entries, ([tag]) => tag, () => make("i"), (part, [tag, held]) => {
    setAttribute(part, "data-tag", kindOf(tag));
    setAttribute(part, "title", `${tag} ${bytes(held)}`);
    setShare(part, "--part", held / most);
  });
  const held = sum(Object.values(ledger.bytes));
  const device = ledger.device?.total_bytes;
  setText(total, bytes(held));
  setAttribute(total, "title", device ? `of ${bytes(device)}` : null);
}

const makeLedgerRow = (tag) =>
  make("tr", tag === null ? {class: "sum"} : {},
    make("th", {scope: "row"}, make("i", {class: "swatch", "aria-hidden": "true"}), make("span")),
    make("td"), make("td"));

// "1.2 MiB", or "1.2–1.4 MiB" where ranks differ.
function spread(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)].map(bytes);
  return least === most ? most : `${least} – ${most}`;
}

function updateLedgerRow(row, tag, ledgers) {
  const values = ledgers.map(
    (it) => tag === null ? sum(Object.values(it.bytes)) : it.bytes[tag] ?? 0);
  const [name, each, all] = row.children;
  setAttribute(name.firstChild, "data-tag", tag === null ? null : kindOf(tag));
  setText(name.lastChild, tag ?? "all of it");
  setText(each, spread(values));
  setText(all, bytes(sum(values)));
}

function updateGraphs(view) {
  const first = view.ledgers.filter((it) => it.rank === 0 || view.daemon.role === "worker");
  const captured = first.filter((it) => it.buckets?.length > 0);
  show(byId("graphs"), captured.length > 0);
  keep(byId("graph-list"), captured, (it) => `${it.replica}/${it.epoch}`,
    () => make("li", {}, make("p"), make("ul", {class: "buckets"}), make("p", {class: "where"})),
    (node, ledger) => updateGraph(node, ledger, view));
}

function updateGraph(node, ledger, view) {
  const [title, buckets, phases] = node.children;
  const held = ledger.bytes.graphs;
  const several = view.replicas.length > 1 ? `Replica ${ledger.replica}: ` : "";
  setText(title, `${several}${count(ledger.buckets.length, "graph")} by rows of a step` +
    (held === undefined ? "" : `, ${bytes(held)} per rank`));
  keep(buckets, ledger.buckets, (rows) => rows, () => make("li"), setText);
  const times = view.phases.find((it) => it.replica === ledger.replica)?.milliseconds ?? {};
  const each = Object.entries(times).map(([phase, took]) => `${phase} ${duration(took)}`);
  setText(phases, each.join(" · "));
}
