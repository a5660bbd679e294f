// Numbers and times as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

const commas = (number) => Math.round(number).toString().replace(/\B(?=(\d{3})+$)/g, ",");

// "1 worker", "2 workers".
const count = (number, noun) => `${commas(number)} ${noun}${number === 1 ? "" : "s"}`;

// Binary units, three digits at most: "512 B", "1.2 MiB", "147 MiB".
function bytes(value) {
  let unit = 0;
  while (value >= 999.5 && unit + 1 < UNITS.length) {
    value /= 1024;
    ++unit;
  }
  return `${value.toFixed(unit === 0 || value >= 9.95 ? 0 : 1)} ${UNITS[unit]}`;
}

// "0.5 ms", "4 ms", "0.4 s", "12 s", "3 min 20 s", "3 h 12 min", "2 d 4 h".
function duration(milliseconds) {
  const seconds = Math.max(0, milliseconds / 1000);
  if (seconds >= 0.00005 && seconds < 0.00095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600) % 24} h`;
}

// Of used in total; 0 where there is nothing.
const share = (used, total) => total > 0 ? Math.min(1, used / total) : 0;

const percent = (fraction) => `${Math.round(fraction * 100)} %`;

// "72.2", "1,204".
const rate = (value) => value < 99.5 ? value.toFixed(1) : commas(value);

// By the daemon's clock, which this browser's need not follow.
const since = (time, now) => duration(Date.parse(now) - Date.parse(time));

const timeOfDay = (time) => new Date(time).toLocaleTimeString("en-GB");

// "WORKER_LOST" as "worker lost".
const words = (name) => String(name ?? "").toLowerCase().replaceAll("_", " ");

// "10.0.0.4" of "10.0.0.4:7600".
const hostOf = (address) => String(address ?? "").replace(/:\d+$/, "");

// "tp 2 × cp 4", with pp where there is any.
const sizes = (config) =>
  (config.pp > 1 ? [`pp ${config.pp}`] : []).concat(`tp ${config.tp}`, `cp ${config.cp}`)
    .join(" × ");

// "0, 1, 2" or "0–7".
function rankList(ranks) {
  const run = ranks.length > 3 && ranks.every((rank, i) => rank === ranks[0] + i);
  return run ? `${ranks[0]}–${ranks.at(-1)}` : ranks.join(", ");
}
