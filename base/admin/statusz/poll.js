// Asks again and again: every second, seldom while nobody looks, and ever more seldom while there
// is no answer.

const INTERVAL = 1000;
const HIDDEN_INTERVAL = 30000;
const LONGEST_PAUSE = 30000;
const PATIENCE = 5000;
// What is older than this is said to be.
const STALE = 5000;

const polling = {answered: null, failures: 0, why: "", next: 0, timer: 0, asking: false};

function pause() {
  const backoff = Math.min(LONGEST_PAUSE, INTERVAL * 2 ** polling.failures);
  return document.hidden ? Math.max(HIDDEN_INTERVAL, backoff) : backoff;
}

// Errors tell a person why there is no answer.
async function ask() {
  let response;
  try {
    response = await fetch("statusz.json", {
      cache: "no-store", credentials: "omit", redirect: "error",
      signal: AbortSignal.timeout(PATIENCE)});
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "no answer in time" : "no connection");
  }
  if (!response.ok) throw new Error(`the answer is HTTP ${response.status}`);
  try {
    return await response.json();
  } catch {
    throw new Error("the answer is no JSON");
  }
}

function draw(json) {
  try {
    drawPage(json);
  } catch (error) {
    console.error(error);
    throw new Error("this page cannot draw the answer");
  }
}

async function poll() {
  if (polling.asking) return;
  clearTimeout(polling.timer);
  polling.asking = true;
  try {
    draw(await ask());
    Object.assign(polling, {answered: performance.now(), failures: 0, why: ""});
  } catch (error) {
    polling.failures += 1;
    polling.why = error.message;
  }
  polling.asking = false;
  polling.next = performance.now() + pause();
  polling.timer = setTimeout(poll, pause());
  showFreshness();
}

// Whether what is shown is what is.
function showFreshness() {
  const age = polling.answered === null ? null : performance.now() - polling.answered;
  const stale = polling.failures > 0 || (age !== null && age > STALE && !document.hidden);
  const known = age !== null ? `What you see is ${duration(age)} old.` : "Nothing is known yet.";
  const wait = Math.ceil(Math.max(0, polling.next - performance.now()) / 1000);
  const again = polling.asking ? "Asking again." : `Asking again in ${wait} s.`;
  setAttribute(document.body, "data-fresh", stale ? "no" : age === null ? "unknown" : "yes");
  setText(byId("live-text"),
    stale ? "not current" : age === null ? "waiting for the first answer" : "live");
  show(byId("stale"), stale);
  setText(byId("stale-why"), stale ? `✕ Not current: ${polling.why || "no answer"}.` : "");
  setText(byId("stale-age"), stale ? `${known} ${again}` : "");
}

watchGroups(byId("replicas"));
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
setInterval(showFreshness, INTERVAL);
poll();
