// Fetches every picture itself, so that it knows the bytes, the type and the time of each answer.

const ACCEPT = "image/avif,image/webp,image/png,image/*;q=0.8,*/*;q=0.5";
const AT_ONCE = 6;
const $ = (id) => document.getElementById(id);

const state = { me: null, you: null, cards: [], chat: [], round: 0 };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function bytes(count) {
  return count < 10_000 ? `${(count / 1000).toFixed(count < 100 ? 2 : 1)} kB` : `${Math.round(count / 1000)} kB`;
}

function saving(before, after) {
  const part = before > 0 ? Math.round((1 - after / before) * 100) : 0;
  if (part === 0) return { text: "same", good: false };
  return part > 0 ? { text: `−${part} %`, good: true } : { text: `+${-part} %`, good: false };
}

// A few requests at a time, in the order of the page.
const queue = [];
let running = 0;
function inTurn(work) {
  return new Promise((resolve, reject) => {
    queue.push(() => work().then(resolve, reject));
    next();
  });
}
function next() {
  if (running >= AT_ONCE || queue.length === 0) return;
  running += 1;
  queue.shift()().finally(() => { running -= 1; next(); });
}

async function picture(path, parameters) {
  const start = performance.now();
  const response = await fetch(`${path}?${new URLSearchParams(parameters)}`, { headers: { Accept: ACCEPT }, cache: "no-store" });
  const blob = await response.blob();
  const type = (response.headers.get("Content-Type") ?? "").split(";")[0];
  if (!response.ok || !type.startsWith("image/")) throw new Error(`answered ${response.status}`);
  return {
    url: URL.createObjectURL(blob),
    bytes: blob.size,
    type: type.replace("image/", ""),
    time: spent(response.headers.get("Server-Timing")) ?? performance.now() - start,
    cache: outcome(response.headers.get("Cache-Status")),
  };
}

// RFC 9211: what this cache did. Whether upstream was asked comes first, and what became of the picture in the detail.
function outcome(header) {
  return /;\s*detail="?([\w-]+)/.exec(header ?? "")?.[1] ?? "";
}

// The milliseconds from request to answer inside the proxy, upstream's answer included; without the browser's own.
function spent(header) {
  const found = /\btotal;dur=([\d.]+)/.exec(header ?? "");
  return found && Number(found[1]);
}

function milliseconds(time) {
  return `${time < 10 ? time.toFixed(1) : Math.round(time)} ms`;
}

function chosen() {
  const form = new FormData($("switches"));
  return { sizes: form.get("sizes").split(" ").map(Number), format: form.get("format"), dpr: form.get("dpr") };
}

function asked(size, { format, dpr }) {
  return format === "original" ? { format } : { size, format, dpr };
}

// One card: the original and the sizes of it.
function makeCard({ path, title, subtitle, shape, id }) {
  const badge = element("span", { class: "saved none" }, "…");
  const shots = element("div", { class: "shots" });
  const heading = element("h3", {}, title, subtitle ? element("span", {}, ` ${subtitle}`) : "");
  const node = element("article", { class: "card", "aria-label": title }, element("header", {}, heading, badge), shots);
  return { node, badge, shots, path, title, shape, id, results: null };
}

function shot(card, label, edge, result, original) {
  const figure = element("div", { class: original ? "shot original" : "shot" });
  const frame = element("div", { class: "frame" });
  if (!result) {
    frame.append(element("span", { class: "missing", role: "img", "aria-label": "not available" }, "?"));
    figure.append(frame, element("div", {}, element("b", {}, label), "refused"));
    return figure;
  }
  const alt = original ? `${card.title}, original` : `${card.title} at ${edge} px`;
  // Emoji are 64 px: larger would only show their pixels.
  const drawn = card.shape === "plain" ? Math.min(edge, 64) : edge;
  frame.append(element("img", { src: result.url, width: drawn, height: drawn, alt, class: card.shape }));
  const facts = element("div", {}, element("b", {}, bytes(result.bytes)));
  if (original) {
    facts.append(element("span", {}, "original"));
  } else {
    const saved = saving(card.results.original.bytes, result.bytes);
    facts.append(element("em", { class: saved.good ? "" : "none" }, saved.text), `${label} px`);
  }
  // A moving picture at another size is its first frame: smaller for more than one reason.
  const stilled = card.results.original?.type === "gif" && result.type !== "gif";
  facts.append(element("br"), stilled ? `${result.type}, still` : result.type, element("br"), milliseconds(result.time));
  if (result.cache && !original) facts.append(element("br"), result.cache);
  figure.append(frame, facts);
  return figure;
}

// `stamp` is what the web client appends when a picture has changed: a proxy that holds an older one asks again.
async function load(card, stamp) {
  const round = state.round;
  const turn = (card.turn ?? 0) + 1;
  card.turn = turn;
  const overtaken = () => round !== state.round || turn !== card.turn;
  const choice = chosen();
  const more = stamp === undefined ? {} : { _: stamp };
  const fetched = [{ format: "original" }, ...choice.sizes.map((size) => asked(size, choice))]
    .map((parameters) => inTurn(async () => (overtaken() ? null : picture(card.path, { ...parameters, ...more }))).catch(() => null));
  const [original, ...variants] = await Promise.all(fetched);
  const results = [original, ...variants];
  if (overtaken()) {
    results.forEach((result) => result && URL.revokeObjectURL(result.url));
    return;
  }
  const old = card.results;
  card.results = { original, variants };
  card.shots.replaceChildren();
  card.node.classList.toggle("changed", stamp !== undefined);
  if (original) {
    card.shots.append(shot(card, "", 96, original, true));
    variants.forEach((result, place) => card.shots.append(shot(card, `${choice.sizes[place]}`, choice.sizes[place], result, false)));
    const smallest = variants.at(-1);
    const saved = smallest ? saving(original.bytes, smallest.bytes) : { text: "refused", good: false };
    card.badge.textContent = saved.text;
    card.badge.classList.toggle("none", !saved.good);
  } else {
    card.shots.append(shot(card, "picture", 96, null, false));
    card.badge.textContent = "refused";
  }
  if (old) [old.original, ...old.variants].forEach((result) => result && URL.revokeObjectURL(result.url));
  total();
}

function total() {
  const { sizes } = chosen();
  const done = state.cards.filter((card) => card.results?.original && card.results.variants.every(Boolean));
  const before = done.reduce((sum, card) => sum + card.results.original.bytes, 0);
  $("total-before").textContent = bytes(before);
  $("total-count").textContent = `is what Mattermost sends for these ${done.length} pictures, at whatever size they are shown. Through the proxy:`;
  const tiles = sizes.map((size, place) => {
    const after = done.reduce((sum, card) => sum + card.results.variants[place].bytes, 0);
    const saved = saving(before, after);
    const bar = element("i");
    bar.style.setProperty("--part", before ? Math.min(1, after / before) : 0);
    return element("li", {},
      element("div", { class: "size" }, `all at ${size} px`),
      element("div", { class: "bytes" }, element("b", {}, bytes(after)), element("span", { class: saved.good ? "saved" : "saved none" }, saved.text)),
      element("div", { class: "track", "aria-hidden": "true" }, bar));
  });
  $("totals").replaceChildren(...tiles);
  const untouched = done.length > 5 && chosen().format !== "original"
    && done.every((card) => card.results.variants.every((result) => result.bytes === card.results.original.bytes));
  $("note").hidden = !untouched;
  $("note").textContent = "Nothing gets smaller: this page was opened at the stand-in itself. Open it at the proxy's address.";
}

function loadAll() {
  state.round += 1;
  state.cards.forEach((card) => card.results = null);
  [state.you, ...state.cards].forEach((card) => load(card));
}

// The chat shows what a client does with it: 32 px beside each message.
const SAID = [
  ["alice", "Morning. The fog is lifting over the harbour."],
  ["nova", "Clear up here, too."],
  ["robo", "It is eight o'clock."],
  ["chelsea", "Then I am going to sleep."],
  ["alice", "Good night! New sign above the door, by the way."],
];

function makeChat(users) {
  const posts = SAID.map(([name, text]) => [users.find((user) => user.username === name), text]).filter(([user]) => user);
  state.chat = posts.map(([user, text]) => {
    const image = element("img", { width: 32, height: 32, alt: "" });
    const said = element("div", {}, element("b", {}, nameOf(user)), element("p", {}, text));
    $("chat").append(element("li", {}, image, said));
    return { id: user.id, image, stamp: user.last_picture_update ?? 0 };
  });
  state.chat.forEach((post) => showPost(post, post.stamp));
}

async function showPost(post, stamp) {
  post.stamp = stamp;
  const parameters = { size: 32, dpr: Math.ceil(devicePixelRatio), _: stamp };
  const result = await inTurn(() => picture(`/api/v4/users/${post.id}/image`, parameters)).catch(() => null);
  if (!result || post.stamp !== stamp) return;
  if (post.url) URL.revokeObjectURL(post.url);
  post.url = result.url;
  post.image.src = result.url;
}

function nameOf(user) {
  return [user.first_name, user.last_name].filter(Boolean).join(" ") || user.username;
}

function refresh({ id, last_picture_update: stamp = 0 }) {
  [state.you, ...state.cards].filter((card) => card?.id === id).forEach((card) => load(card, stamp));
  state.chat.filter((post) => post.id === id).forEach((post) => showPost(post, stamp));
}

// Changes, one's own and others', are heard of over Mattermost's WebSocket.
function listen() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v4/websocket`);
  const say = (text, on) => { $("live-text").textContent = text; $("live").classList.toggle("on", on); };
  socket.addEventListener("message", ({ data }) => {
    const message = JSON.parse(data);
    if (message.event === "hello") say("live", true);
    if (message.event === "user_updated") refresh(message.data.user);
  });
  const ping = setInterval(() => socket.readyState === WebSocket.OPEN && socket.send('{"seq":1,"action":"ping"}'), 30_000);
  socket.addEventListener("close", () => {
    clearInterval(ping);
    say("reconnecting", false);
    setTimeout(listen, 3000 + Math.random() * 2000);
  });
}

async function change(method, body, done) {
  $("said").textContent = "…";
  const headers = { "X-Requested-With": "XMLHttpRequest" };
  const response = await fetch(`/api/v4/users/${state.me.id}/image`, { method, headers, body }).catch(() => null);
  if (response?.ok) {
    $("said").textContent = done;
    return;
  }
  const error = await response?.json().catch(() => null);
  $("said").textContent = error?.message ?? "That did not work: the server cannot be reached.";
}

function upload(blob, done) {
  const form = new FormData();
  form.append("image", blob, "picture.png");
  return change("POST", form, done);
}

// A picture that nobody has seen before, for whoever has none at hand.
function draw() {
  const canvas = element("canvas", { width: 320, height: 320 });
  const brush = canvas.getContext("2d");
  const hue = Math.random() * 360;
  const sky = brush.createLinearGradient(0, 0, 320, 320);
  sky.addColorStop(0, `hsl(${hue} 80% 62%)`);
  sky.addColorStop(1, `hsl(${hue + 70} 85% 40%)`);
  brush.fillStyle = sky;
  brush.fillRect(0, 0, 320, 320);
  for (let ring = 0; ring < 9; ring += 1) {
    brush.beginPath();
    brush.arc(Math.random() * 320, Math.random() * 320, 20 + Math.random() * 75, 0, Math.PI * 2);
    brush.fillStyle = `hsl(${hue + 180 + ring * 14} 90% ${55 + Math.random() * 30}% / 0.55)`;
    brush.fill();
  }
  canvas.toBlob((blob) => upload(blob, "A new picture."), "image/png");
}

async function json(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response.json();
}

async function start() {
  const [me, users, emoji, teams] = await Promise.all(
    ["/api/v4/users/me", "/api/v4/users?per_page=200", "/api/v4/emoji?per_page=20", "/api/v4/users/me/teams"].map(json));
  state.me = me;
  $("you-name").textContent = nameOf(me);
  const person = (user) => ({ path: `/api/v4/users/${user.id}/image`, title: nameOf(user), subtitle: user.is_bot ? "bot" : user.position, shape: "", id: user.id });
  state.you = makeCard(person(me));
  $("you-card").append(state.you.node);
  // Oneself and who speaks in the chat come first: among them is a picture of each kind.
  const first = [me.username, ...SAID.map(([name]) => name)];
  const rank = ({ username }) => (first.includes(username) ? first.indexOf(username) : first.length);
  const picked = users.toSorted((one, other) => rank(one) - rank(other)).map(person);
  picked.push(...emoji.map(({ id, name }) => ({ path: `/api/v4/emoji/${id}/image`, title: `:${name}:`, subtitle: "custom emoji", shape: "plain" })));
  picked.push(...teams.map(({ id, display_name }) => ({ path: `/api/v4/teams/${id}/image`, title: display_name, subtitle: "team icon", shape: "square" })));
  state.cards = picked.map(makeCard);
  $("cards").append(...state.cards.map((card) => element("li", {}, card.node)));
  makeChat(users);
  loadAll();
  listen();
}

$("switches").addEventListener("change", loadAll);
$("draw").addEventListener("click", draw);
$("reset").addEventListener("click", () => change("DELETE", undefined, "Back to the letter."));
$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) upload(file, "Your picture is there.");
  target.value = "";
});

start().catch((error) => { $("said").textContent = `The page could not start: ${error.message}`; });
