// The page of `tunnel web`: asks the API every two seconds, and draws what it says.

const PERIOD = 2000, SHOWN = 180, SVG = "http://www.w3.org/2000/svg";
const EXPIRIES = ["1h", "1d", "7d", "30d", "90d", "365d"];
const LINKS = { "1h": 3600, "1d": 86400, "7d": 604800 };

const $ = (id) => document.getElementById(id);
const texts = await (await fetch("/texts.en.json")).json();
let session = null, state = null, handout = null, logSeen = -1, timer = 0, chosen = null;
const samples = new Map();  // peer's id → [[time, rx, tx], …]
const rows = new Map();     // peer's id → its <li>

function t(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// Texts that others chose (names, messages) are only ever set as text.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function fillTexts() {
  for (const each of document.querySelectorAll("[data-t]")) put(each, t(each.dataset.t));
  for (const each of document.querySelectorAll("[data-placeholder]")) each.placeholder = t(each.dataset.placeholder);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", t(each.dataset.label));
  for (const [name, seconds] of Object.entries(LINKS)) $("link-time").add(new Option(t(`conf.link_${name}`), seconds));
  $("link-time").selectedIndex = 1;
}

// --- figures in words

const UNITS = ["", "k", "M", "G", "T"];

function scaled(value, unit) {
  let step = 0;
  while (value >= 999.5 && step < UNITS.length - 1) { value /= 1000; step += 1; }
  const digits = step === 0 || value >= 99.5 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[step]}${unit}`;
}

const bytes = (value) => scaled(value, "B");
const rate = (value) => scaled(value * 8, "bit/s");

function age(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return t("age.s", { n: s });
  if (s < 6000) return t("age.min", { n: Math.round(s / 60) });
  if (s < 172800) return t("age.h", { n: Math.round(s / 3600) });
  return t("age.d", { n: Math.round(s / 86400) });
}

const when = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
const plain = (network) => network.replace(network.includes(":") ? /\/128$/ : /\/32$/, "");
const addressesOf = (peer) => peer.addresses.map(plain).join(", ");
const nameOf = (peer) => peer.name || `${peer.public_key.slice(0, 10)}…`;

// --- requests

class Refused extends Error {
  constructor(status, code, message) { super(message); this.status = status; this.code = code; }
}

async function ask(method, path, body) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (session && method !== "GET") headers["X-CSRF-Token"] = session.csrf;
  let answer;
  try {
    answer = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin", cache: "no-store", redirect: "error",
      signal: AbortSignal.timeout(method === "GET" ? 8000 : 130000),
    });
  } catch {
    throw new Refused(0, "network", t("error.network"));
  }
  const found = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return found;
  const refused = new Refused(answer.status, found?.code ?? "http", found?.message ?? t("error.unknown", { status: answer.status }));
  if (answer.status === 401 && refused.code === "login" && session) showLogin(t("login.ended"));
  throw refused;
}

// Do it, with the button asleep meanwhile, and what is wrong told beside it.
async function attempt(place, button, work) {
  const error = place.querySelector(".error");
  put(error, "");
  button.disabled = true;
  try {
    return await work();
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    put(error, sentence(refused.message));
    return undefined;
  } finally {
    button.disabled = false;
  }
}

function sentence(text) {
  const upper = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(upper) ? upper : `${upper}.`;
}

function toast(text) {
  put($("toast"), text);
  $("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { $("toast").hidden = true; }, 5000);
}

// --- which page is shown

function show(id) {
  for (const each of ["login", "link", "hub"]) $(each).hidden = each !== id;
}

function showLogin(words = "") {
  session = null;
  clearTimeout(timer);
  samples.clear();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  show("login");
  put($("login-form").querySelector(".error"), words);
  $("password").value = "";
  $("password").focus();
}

async function enter(found) {
  session = found;
  logSeen = -1;
  document.title = `${session.tunnel} – tunnel`;
  put($("hub-name"), session.tunnel);
  const traffic = await ask("GET", "/api/traffic");
  for (const each of traffic.peers) {
    samples.set(each.id, each.times.map((time, i) => [time, each.rx_bytes[i], each.tx_bytes[i]]));
  }
  await refresh();
  if (session) show("hub");
}

// --- the hub

async function refresh() {
  clearTimeout(timer);
  let isStale = true;
  try {
    state = await ask("GET", "/api/state");
    trouble(state.problem || (state.running ? "" : t("hub.not_running", { name: state.name })));
    draw();
    isStale = false;
    if (state.log_changes !== logSeen) {
      drawLog(await ask("GET", "/api/log"));
      logSeen = state.log_changes;
    }
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    if (session) trouble(refused.status ? sentence(refused.message) : t("hub.unreachable", { host: location.host }));
  }
  $("hub").classList.toggle("stale", isStale);
  if (session && !document.hidden) timer = setTimeout(refresh, PERIOD);
}

function trouble(words) {
  put($("trouble"), words);
  $("trouble").hidden = !words;
}

function draw() {
  const now = state.now, peers = state.peers;
  const total = new Map();
  for (const peer of peers) remember(peer, now, total);
  for (const id of samples.keys()) if (!peers.some((peer) => peer.id === id)) samples.delete(id);

  put($("hub-state"), state.running ? t("hub.up", { age: age(now - state.since) }) : t("hub.down"));
  $("hub").dataset.running = state.running;
  const online = peers.filter((peer) => peer.state === "online").length;
  const off = peers.filter((peer) => ["disabled", "expired"].includes(peer.state)).length;
  put($("online"), t("totals.of", { online, all: peers.length }));
  put($("others"), off ? t("totals.off", { count: off }) : t("totals.none_off"));
  const [rx, tx] = sum(peers.map((peer) => latestRates(peer.id)));
  put($("rx-rate"), rate(rx));
  put($("tx-rate"), rate(tx));
  put($("rx-total"), t("totals.since", { bytes: bytes(state.rx_bytes) }));
  put($("tx-total"), t("totals.since", { bytes: bytes(state.tx_bytes) }));
  const all = peers.map((peer) => ratesOf(peer.id, now));
  drawChart($("rx-chart"), [merged(all, 1)]);
  drawChart($("tx-chart"), [merged(all, 2)]);
  put($("addresses"), state.addresses.join(", ") || t("facts.none"));
  put($("endpoint"), state.endpoint || t("facts.endpoint_unknown"));
  put($("public-key"), state.public_key || t("facts.none"));
  put($("conf"), state.conf);
  drawPeers(now);
}

function remember(peer, now) {
  const list = samples.get(peer.id) ?? [];
  if (!list.length || now > list.at(-1)[0]) list.push([now, peer.rx_bytes, peer.tx_bytes]);
  // One older than what is shown, from which its first line comes.
  while (list.length > 2 && list[1][0] < now - SHOWN) list.shift();
  samples.set(peer.id, list);
}

// [[age, received, sent], …] in bytes a second, between each two samples; newest last.
function ratesOf(id, now) {
  const list = samples.get(id) ?? [], found = [];
  for (let i = 1; i < list.length; i += 1) {
    const seconds = list[i][0] - list[i - 1][0];
    // Counters begin again with each daemon.
    const per = (column) => Math.max(0, list[i][column] - list[i - 1][column]) / seconds;
    found.push([now - list[i][0], per(1), per(2)]);
  }
  return found;
}

function latestRates(id) {
  const found = ratesOf(id, state.now).at(-1);
  return found && found[0] < 10 ? [found[1], found[2]] : [0, 0];
}

const sum = (pairs) => pairs.reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);

// The sum over peers, whose samples are of the same moments.
function merged(all, column) {
  const found = new Map();
  for (const list of all) {
    for (const each of list) {
      const key = Math.round(each[0] * 10);
      found.set(key, [each[0], (found.get(key)?.[1] ?? 0) + each[column]]);
    }
  }
  return [...found.values()].sort((a, b) => b[0] - a[0]);
}

// Lines of [age, value] in a box of 100 by 30, to one scale; the first one with its area.
function drawChart(place, lines) {
  let svg = place.firstElementChild;
  if (!svg) {
    svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (const kind of ["area", ...lines.map((_, i) => `line line-${i}`)]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", kind);
      svg.append(path);
    }
    place.append(svg);
  }
  const top = Math.max(1250, ...lines.flat().map((each) => each[1]));
  const points = lines.map((line) => line.filter((each) => each[0] <= SHOWN).map(([old, value]) =>
    `${(100 - old / SHOWN * 100).toFixed(2)} ${(29 - value / top * 27).toFixed(2)}`));
  const paths = points.map((line) => line.length > 1 ? `M${line.join("L")}` : "");
  const [area, ...drawn] = svg.children;
  const ends = points[0];
  area.setAttribute("d", paths[0] && `${paths[0]}L${ends.at(-1).split(" ")[0]} 30L${ends[0].split(" ")[0]} 30Z`);
  drawn.forEach((path, i) => path.setAttribute("d", paths[i]));
}

function drawPeers(now) {
  const wanted = $("filter").value.trim().toLowerCase();
  const shown = state.peers.filter((peer) => !wanted ||
    [peer.name, peer.public_key, ...peer.addresses].some((text) => text.toLowerCase().includes(wanted)));
  const ids = new Set(shown.map((peer) => peer.id));
  for (const [id, row] of rows) if (!ids.has(id)) { row.remove(); rows.delete(id); }
  shown.forEach((peer, place) => {
    const row = rows.get(peer.id) ?? newRow(peer.id);
    if ($("peers").children[place] !== row) $("peers").insertBefore(row, $("peers").children[place] ?? null);
    drawRow(row, peer, now);
  });
  put($("no-peers"), t(state.peers.length ? "peers.none_match" : "peers.none"));
  $("no-peers").hidden = shown.length > 0;
}

function newRow(id) {
  const row = $("peer-row").content.firstElementChild.cloneNode(true);
  row.querySelector(".who").addEventListener("click", () => openPeer(id));
  row.querySelector(".switch").addEventListener("click", (event) => toggle(id, event.currentTarget));
  rows.set(id, row);
  return row;
}

function drawRow(row, peer, now) {
  const part = (selector) => row.querySelector(selector);
  const name = nameOf(peer), [rx, tx] = latestRates(peer.id);
  row.dataset.state = peer.state;
  put(part(".name"), name);
  put(part(".addresses"), addressesOf(peer));
  part(".who").setAttribute("aria-label", t("row.open", { name }));
  put(part(".state"), t(`state.${peer.state}`));
  put(part(".more"), remark(peer, now));
  put(part(".rates .in"), rate(rx));
  put(part(".rates .out"), rate(tx));
  put(part(".totals .in"), bytes(peer.rx_bytes));
  put(part(".totals .out"), bytes(peer.tx_bytes));
  for (const each of row.querySelectorAll("p .in")) each.title = t("row.received");
  for (const each of row.querySelectorAll("p .out")) each.title = t("row.sent");
  const rates = ratesOf(peer.id, now);
  drawChart(part(".chart"), [rates.map((r) => [r[0], r[1]]), rates.map((r) => [r[0], r[2]])]);
  part(".chart").setAttribute("aria-label", t("row.chart", { rx: rate(rx), tx: rate(tx) }));
  const toggler = part(".switch");
  toggler.setAttribute("aria-checked", String(peer.state !== "disabled"));
  toggler.setAttribute("aria-label", t("row.enabled", { name }));
  toggler.hidden = !peer.in_conf;
}

function remark(peer, now) {
  const found = [];
  if (!peer.in_conf) found.push(t("state.not_in_conf"));
  if (peer.link_until) found.push(t("state.link", { age: age(peer.link_until - now) }));
  if (["online", "away"].includes(peer.state)) found.push(t("state.handshake", { age: age(now - peer.latest_handshake) }));
  if (peer.state === "expired") found.push(t("state.expired_ago", { age: age(now - peer.expires) }));
  else if (peer.expires) found.push(t("state.expires", { age: age(peer.expires - now) }));
  return found.join(" · ");
}

function drawLog(log) {
  put($("log-problem"), log.problem && sentence(log.problem));
  $("log-problem").hidden = !log.problem;
  $("no-log").hidden = log.entries.length > 0;
  $("log").hidden = !log.entries.length;
  $("log").replaceChildren(...log.entries.map((entry) => {
    const item = document.createElement("li"), time = document.createElement("time"), words = document.createElement("span");
    time.dateTime = new Date(entry.time * 1000).toISOString();
    time.textContent = when(entry.time);
    words.textContent = t(`log.${entry.kind}`, { peer: entry.peer, address: entry.address || t("log.local") });
    item.dataset.kind = entry.kind;
    item.append(time, words);
    return item;
  }));
}

// --- changes

const listOf = (text) => text.split(/[\s,]+/).filter(Boolean);

async function toggle(id, button) {
  // Not put to sleep, which would take the focus away.
  if (button.ariaBusy === "true") return;
  const peer = state.peers.find((each) => each.id === id);
  const disabled = peer.state !== "disabled";
  button.ariaBusy = "true";
  try {
    const done = await ask("PATCH", `/api/peers/${id}`, { disabled });
    toast(done.notice || t(disabled ? "peer.disabled" : "peer.enabled", { name: nameOf(peer) }));
  } catch (refused) {
    toast(sentence(refused.message));
  }
  await refresh();
  button.ariaBusy = "false";
}

function fillExpiries(select, expires) {
  select.replaceChildren(new Option(t("expiry.never"), ""));
  if (expires) select.add(new Option(t("expiry.at", { time: when(expires) }), "same"));
  for (const each of EXPIRIES) select.add(new Option(t(`expiry.${each}`), each));
  select.value = expires ? "same" : "";
}

// For a new peer, or for new keys of one.
function openAdd(peer = null) {
  const form = $("add-form");
  form.reset();
  chosen = peer;
  put($("add-title"), peer ? t("keys.title", { name: nameOf(peer) }) : t("add.title"));
  put($("add-words"), peer ? t("keys.words") : "");
  $("add-words").hidden = !peer;
  put($("add-do"), t(peer ? "keys.do" : "add.do"));
  for (const id of ["add-name", "add-expires", "add-addresses"]) $(id).hidden = Boolean(peer);
  $("new-name").required = !peer;
  $("add-endpoint").hidden = Boolean(state.endpoint);
  $("new-endpoint").required = !state.endpoint;
  $("new-reach").hidden = true;
  put($("reach-hub"), state.networks.join(", "));
  fillExpiries($("new-expires"), 0);
  put(form.querySelector(".error"), "");
  form.querySelector("details").open = false;
  $("add-dialog").showModal();
}

async function add(event) {
  event.preventDefault();
  const form = $("add-form"), field = (name) => form.elements[name].value;
  const reach = { hub: [], all: ["0.0.0.0/0", "::/0"], other: listOf(field("networks")) }[field("reach")];
  const wanted = {
    endpoint: field("endpoint").trim(), reach, excluded: listOf(field("excluded")), dns: listOf(field("dns")),
  };
  if (!chosen) {
    wanted.name = field("name").trim();
    wanted.expires = field("expires");
    wanted.addresses = listOf(field("addresses"));
  }
  const path = chosen ? `/api/peers/${chosen.id}/keys` : "/api/peers";
  const found = await attempt(form, $("add-do"), () => ask("POST", path, wanted));
  if (!found) return;
  $("add-dialog").close();
  openConf(found);
  await refresh();
}

function openConf(found) {
  handout = found;
  put($("conf-title"), t("conf.title", { name: found.name }));
  put($("conf-words"), t("conf.words"));
  put($("conf-notice"), found.notice);
  $("conf-notice").hidden = !found.notice;
  put($("conf-text"), found.conf);
  put($("qr-words"), t(found.qr.length ? "conf.scan" : "conf.no_qr"));
  $("save-qr").hidden = !found.qr.length;
  $("qr").replaceChildren(...(found.qr.length ? [qrPicture(found.qr)] : []));
  $("link-maker").hidden = !found.id;
  $("link-made").hidden = true;
  $("make-link").disabled = false;
  put($("conf-dialog").querySelector(".error"), "");
  $("conf-dialog").querySelector("details").open = false;
  $("conf-dialog").showModal();
}

function closeConf() {
  handout = null;
  put($("conf-text"), "");
  $("qr").replaceChildren();
  $("link-text").value = "";
}

const QUIET = 4;

function qrPicture(bits) {
  const size = bits.length + 2 * QUIET, svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
  svg.setAttribute("shape-rendering", "crispEdges");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", t("conf.qr"));
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", bits.flatMap((row, y) => [...row].map((bit, x) =>
    bit === "1" ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : "")).join(""));
  svg.append(path);
  return svg;
}

function saveQr() {
  const scale = 8, size = (handout.qr.length + 2 * QUIET) * scale;
  const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, size, size);
  pen.fillStyle = "#000";
  handout.qr.forEach((row, y) => [...row].forEach((bit, x) => {
    if (bit === "1") pen.fillRect((x + QUIET) * scale, (y + QUIET) * scale, scale, scale);
  }));
  const name = handout.file.replace(/\.conf$/, ".png");
  canvas.toBlob((blob) => saveAs(blob, name), "image/png");
}

function saveAs(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function makeLink() {
  const asked = { handout: handout.id, seconds: Number($("link-time").value) };
  const link = await attempt($("conf-dialog"), $("make-link"), () => ask("POST", "/api/links", asked));
  if (!link) return;
  // In the fragment, which no server and no log gets to see.
  $("link-text").value = `${location.origin}/#link=${link.token}`;
  put($("link-words"), t("conf.link_words", { time: when(link.until) }));
  $("link-made").hidden = false;
  $("make-link").disabled = true;
  $("link-text").select();
}

function copyLink() {
  $("link-text").select();
  // navigator.clipboard is for https alone.
  if (document.execCommand("copy")) put($("link-words"), t("conf.copied"));
}

function openPeer(id) {
  const peer = state.peers.find((each) => each.id === id);
  chosen = peer;
  put($("peer-title"), nameOf(peer));
  put($("peer-state"), [t(`state.${peer.state}`), remark(peer, state.now)].filter(Boolean).join(" · "));
  put($("peer-addresses"), addressesOf(peer) || t("facts.none"));
  put($("peer-endpoint"), peer.endpoint || t("facts.none"));
  put($("peer-handshake"), peer.latest_handshake ? when(peer.latest_handshake) : t("facts.none"));
  put($("peer-traffic"), t("peer.traffic", { rx: bytes(peer.rx_bytes), tx: bytes(peer.tx_bytes) }));
  put($("peer-key"), peer.public_key);
  put($("peer-link"), peer.link_until ? t("peer.link_until", { time: when(peer.link_until) }) : t("facts.none"));
  $("peer-link").parentElement.hidden = !peer.link_until;
  $("peer-foreign").hidden = peer.in_conf;
  $("peer-edit").hidden = !peer.in_conf;
  $("peer-close").hidden = peer.in_conf;
  $("peer-name").value = peer.name;
  fillExpiries($("peer-expires"), peer.expires);
  put($("peer-form").querySelector(".error"), "");
  $("peer-dialog").showModal();
}

async function savePeer(event) {
  event.preventDefault();
  const changes = {}, name = $("peer-name").value.trim(), expires = $("peer-expires").value;
  if (name !== chosen.name) changes.name = name;
  if (expires !== "same" && (expires || chosen.expires)) changes.expires = expires;
  const button = $("peer-form").querySelector(".primary");
  const done = await attempt($("peer-form"), button, () => ask("PATCH", `/api/peers/${chosen.id}`, changes));
  if (!done) return;
  $("peer-dialog").close();
  toast(done.notice || t("peer.saved"));
  await refresh();
}

function askRemove() {
  const peer = chosen, name = nameOf(peer), dialog = $("ask-dialog");
  $("peer-dialog").close();
  put($("ask-title"), t("remove.title", { name }));
  put($("ask-words"), t("remove.words"));
  put($("ask-do"), t("remove.do"));
  put(dialog.querySelector(".error"), "");
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    const done = await attempt(dialog, $("ask-do"), () => ask("DELETE", `/api/peers/${peer.id}`));
    if (!done) return;
    dialog.close();
    toast(done.notice || t("peer.removed", { name }));
    await refresh();
    $("add").focus();
  };
  dialog.showModal();
}

// --- beginning

function wire() {
  $("login-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("login-form").querySelector("button");
    const body = { password: $("password").value };
    const found = await attempt($("login-form"), button, () => ask("POST", "/api/login", body));
    if (!found) { $("password").select(); return; }
    $("password").value = "";
    await enter(found);
    $("add").focus();
  });
  $("link-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const token = new URLSearchParams(location.hash.slice(1)).get("link") ?? "";
    const button = $("link-form").querySelector("button");
    const found = await attempt($("link-form"), button, () => ask("POST", "/api/links/open", { token }));
    if (!found) return;
    button.disabled = true;
    history.replaceState(null, "", "/");
    openConf(found);
  });
  $("logout").addEventListener("click", async () => {
    await ask("POST", "/api/logout").catch(() => null);
    showLogin();
  });
  $("add").addEventListener("click", () => openAdd());
  $("add-form").addEventListener("submit", add);
  $("add-form").addEventListener("change", (event) => {
    if (event.target.name !== "reach") return;
    $("new-reach").hidden = event.target.value !== "other";
    $("new-reach").required = event.target.value === "other";
  });
  $("peer-form").addEventListener("submit", savePeer);
  $("peer-remove").addEventListener("click", askRemove);
  $("peer-keys").addEventListener("click", () => { $("peer-dialog").close(); openAdd(chosen); });
  $("save-conf").addEventListener("click", () => saveAs(new Blob([handout.conf], { type: "text/plain" }), handout.file));
  $("save-qr").addEventListener("click", saveQr);
  $("make-link").addEventListener("click", makeLink);
  $("copy-link").addEventListener("click", copyLink);
  $("conf-dialog").addEventListener("close", closeConf);
  $("filter").addEventListener("input", () => state && drawPeers(state.now));
  for (const each of document.querySelectorAll("[data-close]")) each.addEventListener("click", () => each.closest("dialog").close());
  document.addEventListener("visibilitychange", () => { if (session && !document.hidden) refresh(); });
}

fillTexts();
wire();
if (location.hash.startsWith("#link=")) {
  show("link");
} else {
  try {
    await enter(await ask("GET", "/api/session"));
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    showLogin(refused.status === 401 ? "" : sentence(refused.message));
  }
}
