"use strict";
// ---- Zones drawn by hand: each change is sent whole; the server writes the file and answers with what there is.
const NEAR = 14;
let drawing = null, drag = null, hover = null, listed = "", changes = 0, saving = 0, underway = false;

const editable = () => Boolean(zones && zones.revision && status && status.size);
const shapes = () => [...zones.zones, ...zones.lines];
const ends = shape => shape.polygon || [shape.start, shape.end];
const say = text => write("zonesay", text);

// Where a pointer is: in the coordinates of zones.json, kept within the picture.
function where(event) {
  const box = at("overlay").getBoundingClientRect(), view = viewOf(box.width, box.height);
  const round = (value, most) => Math.min(Math.max(most === 1 ? Math.round(value * 1e4) / 1e4 : Math.round(value), 0), most);
  const x = (event.clientX - box.left - view.left) / view.scale / view.across, y = (event.clientY - box.top - view.top) / view.scale / view.down;
  return [round(x, view.width / view.across), round(y, view.height / view.down)];
}

function apart([ax, ay], [bx, by]) {
  const box = at("overlay").getBoundingClientRect(), view = viewOf(box.width, box.height);
  return Math.hypot((ax - bx) * view.across * view.scale, (ay - by) * view.down * view.scale);
}

// The corner, or else the zone or line, that is under a pointer; the uppermost first.
function grasp(point) {
  for (const shape of shapes().reverse())
    for (const [index, corner] of ends(shape).entries()) if (apart(corner, point) <= NEAR) return { shape, index };
  for (const shape of shapes().reverse())
    if (shape.polygon ? inside(point, shape.polygon) : beside(point, shape)) return { shape, index: -1 };
  return null;
}

function inside([x, y], polygon) {
  let odd = false;
  polygon.forEach(([ax, ay], i) => {
    const [bx, by] = polygon[(i + 1) % polygon.length];
    if ((ay > y) !== (by > y) && x < ax + (bx - ax) * (y - ay) / (by - ay)) odd = !odd;
  });
  return odd;
}

function beside(point, { start, end }) {
  const along = apart(start, end), a = apart(start, point), b = apart(end, point), half = (along + a + b) / 2;
  return a + b < along + NEAR && 2 * Math.sqrt(Math.max(half * (half - along) * (half - a) * (half - b), 0)) / along < NEAR / 2;
}

at("overlay").onpointerdown = event => {
  if (!editable() || event.button) return;
  const point = where(event);
  event.preventDefault();
  at("overlay").setPointerCapture(event.pointerId);
  if (drawing) { add(point); return }
  const held = grasp(point);
  if (held) drag = { ...held, from: point, before: structuredClone(ends(held.shape)), moved: false };
};

at("overlay").onpointermove = event => {
  if (!editable()) return;
  const point = where(event);
  if (drawing) hover = point;
  else if (drag) {
    drag.moved = drag.moved || apart(point, drag.from) > 3;
    if (drag.moved) move(point);
  } else at("overlay").style.cursor = grasp(point) ? "move" : "";
  if (drawing || drag) overlay();
};

at("overlay").onpointerup = event => {
  // A line may be pulled in one go.
  if (drawing && drawing.kind === "line" && drawing.points.length === 1 && apart(where(event), drawing.points[0]) > NEAR) add(where(event));
  if (drag && drag.moved) { move(where(event)); save() }
  drag = null;
};
// A finger scrolls the page, unless it draws or has hold of something.
at("overlay").addEventListener("touchstart", event => {
  if (editable() && (drawing || grasp(where(event.touches[0])))) event.preventDefault();
}, { passive: false });
at("overlay").onpointercancel = () => { drag = null; ask() };
at("overlay").ondblclick = () => { if (drawing) finish() };

function move(point) {
  const { shape, index, before, from } = drag, view = viewOf(1, 1), most = [view.width / view.across, view.height / view.down];
  const by = [0, 1].map(k => {
    const all = before.map(corner => corner[k]);
    return Math.min(Math.max(point[k] - from[k], -Math.min(...all)), most[k] - Math.max(...all));
  });
  const places = before.map((corner, i) => index < 0 ? corner.map((value, k) => Number((value + by[k]).toFixed(4))) : i === index ? point : corner);
  if (shape.polygon) shape.polygon = places; else [shape.start, shape.end] = places;
}

// ---- Drawing.
function begin(kind) {
  drawing = drawing && drawing.kind === kind ? null : { kind, points: [] };
  hover = null;
  told();
}

function told() {
  at("drawzone").ariaPressed = String(Boolean(drawing && drawing.kind === "zone"));
  at("drawline").ariaPressed = String(Boolean(drawing && drawing.kind === "line"));
  at("screen").classList.toggle("drawing", Boolean(drawing));
  say(!drawing ? "" : drawing.kind === "line" ? "Click where the line starts and where it ends." :
    "Click the corners; the first one again, a double click or Enter closes the area. Backspace takes one back, Escape ends.");
  overlay();
}

function add(point) {
  const { kind, points } = drawing;
  if (points.length && apart(points[points.length - 1], point) < 4) return;
  if (kind === "zone" && points.length > 2 && apart(points[0], point) <= NEAR) { finish(); return }
  points.push(point);
  if (kind === "line" && points.length === 2) finish(); else overlay();
}

async function finish() {
  const { kind, points } = drawing;
  if (points.length < (kind === "line" ? 2 : 3)) return;
  const names = shapes().map(shape => shape.name), word = kind === "line" ? "line" : "area";
  let number = 1;
  while (names.includes(word + " " + number)) number++;
  const name = word + " " + number, undone = drawing;
  if (kind === "line") zones.lines.push({ name, start: points[0], end: points[1] });
  else zones.zones.push({ name, polygon: points });
  drawing = null;
  told();
  if (await save()) {
    const box = [...at("zones").querySelectorAll("input")].find(input => input.value === name);
    if (box) box.select();
  } else if (kind === "zone") {
    // What was refused stays on the picture, so that its last corner can be taken back.
    const why = at("zonesay").textContent;
    drawing = undone;
    told();
    say(why);
  }
}

addEventListener("keydown", event => {
  if (!drawing || event.target.matches("input")) return;
  if (event.key === "Escape") { drawing = null; told() }
  else if (event.key === "Enter" && !event.target.matches("button")) finish();
  else if (event.key === "Backspace") { drawing.points.pop(); overlay() }
});

// ---- Sending. One change at a time, the newest; where it is refused, what the server has comes back.
async function save() {
  const own = ++changes;
  saving++;
  while (underway) await sleep(20);
  underway = true;
  const good = own === changes ? await submit(own) : true;
  underway = false;
  saving--;
  if (!good) await ask();
  list(); overlay();
  return good;
}

async function submit(own) {
  const { revision, coordinates, anchor } = zones;
  const plan = { coordinates, anchor, zones: zones.zones, lines: zones.lines };
  try {
    const answer = await fetch("zones.json", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ revision, plan }) });
    const found = await answer.json();
    if (!answer.ok) { say(found.error.replace(/^\[zones\] (the change: )?/, "")); return false }
    if (own === changes) zones = found; else zones.revision = found.revision;
    say("");
    return true;
  } catch (error) { say("Not saved: the server does not answer"); return false }
}

// ---- The list beside the picture.
function list() {
  at("zonecard").hidden = !zones || !(zones.revision || shapes().length);
  if (at("zonecard").hidden) return;
  at("screen").classList.toggle("editable", editable());
  for (const id of ["drawzone", "drawline"]) at(id).hidden = !zones.revision;
  write("zonefile", zones.file || "");
  const now = JSON.stringify([Boolean(zones.revision), shapes().map(shape => [shape.name, Boolean(shape.polygon)])]);
  if (now !== listed) { listed = now; at("zones").replaceChildren(...shapes().map(entry)) }
  [...at("zones").children].forEach((item, i) => {
    const count = (zones.counts || {})[shapes()[i].name] || { in: 0, out: 0 }, text = count.in + " in, " + count.out + " out";
    if (item.querySelector("output").textContent !== text) item.querySelector("output").textContent = text;
  });
}

function entry(shape) {
  const item = document.createElement("li"), name = document.createElement("input"), count = document.createElement("output");
  name.value = shape.name; name.maxLength = 80; name.ariaLabel = "Name of " + shape.name; name.readOnly = !zones.revision;
  const own = () => shapes().find(other => other.name === shape.name);
  name.onchange = () => {
    const found = own(), wanted = name.value.trim();
    if (!found || !wanted) { name.value = shape.name; return }
    found.name = wanted;
    listed = "";
    save();
  };
  item.append(name, count);
  if (!zones.revision) return item;
  if (!shape.polygon) item.append(button("⇄", "Turn " + shape.name + " round", () => { const found = own(); [found.start, found.end] = [found.end, found.start]; save() }));
  item.append(button("✕", "Delete " + shape.name, () => {
    zones.zones = zones.zones.filter(other => other.name !== shape.name);
    zones.lines = zones.lines.filter(other => other.name !== shape.name);
    save();
  }));
  return item;
}

function button(sign, label, act) {
  const made = document.createElement("button");
  made.className = "link"; made.textContent = sign; made.ariaLabel = made.title = label; made.onclick = act;
  return made;
}

// ---- What the overlay shows beside the zones: corners to take hold of, and what is being drawn.
function handles(pen, view, size) {
  if (!editable()) return;
  const dot = ([x, y], radius) => { pen.beginPath(); pen.arc(x * view.across, y * view.down, radius * size, 0, 7); pen.fill() };
  pen.fillStyle = "#fff";
  shapes().forEach(shape => ends(shape).forEach(corner => dot(corner, 5)));
  if (!drawing) return;
  const points = [...drawing.points, ...(hover ? [hover] : [])];
  pen.setLineDash([6 * size, 4 * size]);
  pen.beginPath();
  points.forEach(([x, y], i) => i ? pen.lineTo(x * view.across, y * view.down) : pen.moveTo(x * view.across, y * view.down));
  pen.stroke();
  pen.setLineDash([]);
  drawing.points.forEach((corner, i) => dot(corner, i ? 5 : 8));
}

// The button lets go of the keyboard, whose Enter is to close the area.
for (const [id, kind] of [["drawzone", "zone"], ["drawline", "line"]]) at(id).onclick = () => { at(id).blur(); begin(kind) };
document.addEventListener("zones", list);
