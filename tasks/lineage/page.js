"use strict";
// Shows what tasks/lineage/page.py worked out: which things there are, where they stand, what each one's path is.
// Words of the record become text nodes, never markup.
(() => {
  const record = JSON.parse(document.getElementById("record").textContent);
  const { things, kinds, marks, columns, bands } = record;
  const byId = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
      if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
    element.append(...children.filter((child) => child != null));
    return element;
  };
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

  // ---- what belongs to what

  const kids = things.map(() => []);
  things.forEach((thing, i) => { if (thing.parent !== undefined) kids[thing.parent].push(i); });
  const order = things.map((thing, i) => (thing.fold ? kids[i][0] : i));
  for (const list of kids) list.sort((a, b) => order[a] - order[b]);
  const holders = new Set(record.holders);
  const filesOf = things.map((thing) => new Set((thing.files || []).map(([stage]) => stage)));
  const expanded = new Map();
  const numbersOf = (set) => {
    if (!expanded.has(set)) {
      const found = [];
      const runs = record.sets[set];
      for (let at = 0; at < runs.length; at += 2) for (let n = 0; n < runs[at + 1]; n++) found.push(runs[at] + n);
      expanded.set(set, found);
    }
    return expanded.get(set);
  };
  const ancestors = (i) => {
    const found = [];
    for (let at = things[i].parent; at !== undefined; at = things[at].parent) found.push(at);
    return found;
  };
  const leaves = (i) => (kids[i].length ? kids[i].flatMap(leaves) : [i]);
  const countKids = (i) => (things[i].fold && kids[kids[i][0]].length ? leaves(i).length : kids[i].length);

  /** A thing's path: what it was made from (by the checkpoint gone through) and what was made from it. */
  function pathOf(i) {
    const roles = new Map();
    const down = new Set();
    for (const one of things[i].fold ? kids[i] : [i]) {
      for (const [role, set] of things[one].up || [])
        for (const number of numbersOf(set)) {
          if (!roles.has(role)) roles.set(role, new Set());
          roles.get(role).add(number);
        }
      if (things[one].down !== undefined) for (const number of numbersOf(things[one].down)) down.add(number);
    }
    const own = new Set(things[i].fold ? [i, ...kids[i]] : [i]);
    for (const set of [...roles.values(), down]) for (const number of own) set.delete(number);
    const up = new Set([...roles.values()].flatMap((set) => [...set]));
    const around = new Set([...own, ...up, ...down].flatMap(ancestors));
    return { roles, up, down, own, around, all: new Set([...up, ...down, ...own, ...around]) };
  }

  // ---- looks

  const ICONS = {
    "video": "M3 2l11 6-11 6z",
    "clip": "M1 3h14v10H1zM3 5h2v2H3zM3 9h2v2H3zM11 5h2v2h-2zM11 9h2v2h-2z",
    "subject": "M8 1.2a2.7 2.7 0 1 1 0 5.4a2.7 2.7 0 0 1 0-5.4zM2.8 15c0-4.3 2-7 5.2-7s5.2 2.7 5.2 7z",
    "raw data": "M2 4c0-1.6 2.7-2.8 6-2.8s6 1.2 6 2.8v8c0 1.6-2.7 2.8-6 2.8s-6-1.2-6-2.8zM4 4.2c0 .6 1.8 1.2 4 1.2s4-.6 4-1.2-1.8-1.2-4-1.2-4 .6-4 1.2z",
    "dataset": "M8 .8l7.2 3.6L8 8 .8 4.4zM3 6.9l5 2.5 5-2.5 2.2 1.1L8 11.6.8 8zM3 10.500l5 2.500 5-2.500 2.200 1.100L8 15.2.8 11.6z",
    "checkpoint": "M8 .8l6.3 3.600v7.200L8 15.200l-6.300-3.600V4.400zM8 5.200a2.800 2.800 0 1 0 0 5.600a2.800 2.800 0 0 0 0-5.600z",
    "render": "M1 2h14v12H1zM2.800 3.800v7l3-3.400 2.400 2.500 2.200-2.400 2.800 3.200V3.800z",
    "metric": "M2 9h3v5H2zM6.500 5.500h3V14h-3zM11 2h3v12h-3z",
    "report": "M3 1h7l3 3v11H3zM5 6.800h6V8H5zM5 9.500h6v1.200H5zM5 12.200h4v1.200H5z",
  };
  const SHORT = { "withdrawn": "withdrawn", "stale": "stale", "non-commercial": "NC", "licence unknown": "lic. ?", "gap": "gap" };
  const svg = (width, height, inside) =>
    `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">${inside}</svg>`)}`;
  const PALETTES = {
    light: {
      bg: "#ffffff", soft: "#f4f6f8", ink: "#14171a", muted: "#5c6570", line: "#c3cad2", band: "#f4f6f8", up: "#0072b2", down: "#b44700",
      kinds: ["#0072b2", "#0b7d84", "#00805d", "#5c6570", "#7d6400", "#6552c4", "#c25500", "#a3478f", "#14171a"],
      marks: ["#b42318", "#9a5b00", "#14171a", "#5c6570", "#5c6570"],
    },
    dark: {
      bg: "#101214", soft: "#1a1d21", ink: "#e9ecef", muted: "#9aa3ad", line: "#454c55", band: "#171a1e", up: "#56b4e9", down: "#f58a3c",
      kinds: ["#56b4e9", "#4fc3c9", "#2fc79a", "#9aa3ad", "#d6b52c", "#a598f0", "#f58a3c", "#d98cc7", "#e9ecef"],
      marks: ["#ff8a7d", "#f0b357", "#e9ecef", "#9aa3ad", "#9aa3ad"],
    },
  };
  const darkQuery = matchMedia("(prefers-color-scheme: dark)");
  let palette = darkQuery.matches ? PALETTES.dark : PALETTES.light;
  const drawn = new Map(); // pictures of icons and pills, by what they show
  const keep = (key, draw) => { if (!drawn.has(key)) drawn.set(key, draw()); return drawn.get(key); };

  const iconKind = (thing) => thing.of || kinds[thing.kind];
  const iconUri = (name, colour) => keep(`${name} ${colour}`, () =>
    svg(32, 32, `<path transform="scale(2)" fill="${colour}" fill-rule="evenodd" d="${ICONS[name]}"/>`));
  function pillsUri(list) {
    return keep(`pills ${list} ${palette.bg}`, () => {
      let x = 0;
      const parts = list.map((mark) => {
        const text = SHORT[marks[mark]];
        const width = 10 + lengthOf(text, 9.5, 600);
        const colour = palette.marks[mark];
        const isFull = marks[mark] === "withdrawn" || marks[mark] === "non-commercial";
        const dash = marks[mark] === "stale" ? "3 2" : marks[mark] === "gap" ? "1 1.500" : "none";
        const part = `<rect x="${x + 0.5}" y=".5" width="${width - 1}" height="13" rx="${marks[mark] === "non-commercial" ? 0 : 6.5}" fill="${isFull ? colour : palette.bg}" stroke="${colour}" stroke-dasharray="${dash}"/><text x="${x + width / 2}" y="10.500" font-family='${FAMILY}' font-size="9.5" font-weight="600" text-anchor="middle" fill="${isFull ? palette.bg : colour}">${text}</text>`;
        x += width + 3;
        return part;
      });
      return { width: x, uri: svg(x, 14, parts.join("")) };
    });
  }
  function icon(thing, size = 16) {
    const ns = "http://www.w3.org/2000/svg";
    const element = document.createElementNS(ns, "svg");
    const shape = document.createElementNS(ns, "path");
    element.setAttribute("viewBox", "0 0 16 16");
    element.setAttribute("width", size);
    element.setAttribute("height", size);
    element.setAttribute("aria-hidden", "true");
    element.setAttribute("class", `icon k${kinds.indexOf(iconKind(thing))}`);
    shape.setAttribute("d", ICONS[iconKind(thing)]);
    shape.setAttribute("fill-rule", "evenodd");
    element.append(shape);
    return element;
  }
  const pill = (mark) => make("span", { class: `pill m${mark}` }, marks[mark]);
  const marksOf = (i) => {
    if (!things[i].fold) return Object.keys(things[i].marks || {}).map(Number);
    return [...new Set(kids[i].flatMap(marksOf))].sort();
  };
  const pictureOf = (thing) => (thing.picture ? `data:image/jpeg;base64,${thing.picture}` : "");

  // ---- state

  const state = { selected: -1, path: null, query: "", kinds: new Set(), marks: new Set(), only: true, cursor: -1 };
  const openAll = new Set(record.open); // in the whole picture
  let openPath = new Map(); // in a path: what was opened or closed by hand
  const isPathView = () => state.path !== null && state.only;

  const haystacks = [];
  const isHash = (text) => /^[0-9a-f]{32,64}(\.dir)?$/.test(text);
  /** Its words, and its hashes apart: a word of letters a to f is no hash. */
  const haystack = (i) => {
    if (haystacks[i] === undefined) {
      const thing = things[i];
      const words = [thing.name, thing.key, thing.sub, thing.batch, kinds[thing.kind], ...marksOf(i).map((mark) => marks[mark])];
      words.push(...(thing.facts || []).map(([, value]) => value));
      words.push(...(thing.files || []).flatMap(([, path, md5]) => [path, md5]));
      words.push(...(thing.outs || []).flatMap(([path, md5]) => [path, md5]));
      const join = (list) => list.join("\n").toLowerCase();
      haystacks[i] = { words: join(words.filter((word) => !isHash(word))), hashes: join(words.filter(isHash)) };
    }
    return haystacks[i];
  };
  const isFiltering = () => Boolean(state.query || state.kinds.size || state.marks.size);
  function passes(i) {
    if (state.kinds.size && !state.kinds.has(things[i].kind)) return false;
    return !state.marks.size || marksOf(i).some((mark) => state.marks.has(mark));
  }
  function matches(i) {
    if (!passes(i)) return false;
    const { words, hashes } = haystack(i);
    return state.query.toLowerCase().split(/\s+/).every((word) => words.includes(word) || (/^[0-9a-f]{6,}/.test(word) && hashes.includes(word)));
  }

  // ---- the picture

  const W = 152, H = 54, GAP_X = 38, GAP_Y = 10, PAD = 9, HEAD = 28, BAND_GAP = 24, PER_COLUMN = 14, FONT = 15;
  const FAMILY = 'ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
  let reps = []; // thing -> the thing that it is drawn as, -1 = it is not
  let places = new Map(); // drawn thing -> its box

  const inView = (i) => !isPathView() || state.path.all.has(i);
  const viewKids = (i) => kids[i].filter(inView);
  function isOpen(i) {
    if (!kids[i].length) return false;
    if (!isPathView()) return openAll.has(i);
    if (openPath.has(i)) return openPath.get(i);
    const shown = viewKids(i).length;
    return shown > 0 && (shown <= 6 || (state.path.own.has(i) && shown <= 12));
  }

  function measure(i) {
    if (!isOpen(i)) return { i, w: W, h: marksOf(i).length && subOf(i) ? H + 19 : H, parts: null };
    const parts = viewKids(i).map(measure);
    const number = Math.ceil(parts.length / PER_COLUMN), rows = Math.ceil(parts.length / number);
    let x = PAD, height = 0;
    for (let first = 0; first < parts.length; first += rows) {
      const stack = parts.slice(first, first + rows);
      const width = Math.max(...stack.map((part) => part.w));
      let y = HEAD;
      for (const part of stack) { part.x = x + (width - part.w) / 2; part.y = y; y += part.h + GAP_Y; }
      height = Math.max(height, y - GAP_Y + PAD);
      x += width + GAP_Y;
    }
    return { i, w: Math.max(x - GAP_Y + PAD, W), h: height, parts };
  }

  function subOf(i) {
    const thing = things[i];
    if (!kids[i].length) return thing.sub;
    const count = countKids(i), shown = viewKids(i).length;
    if (isPathView() && shown < kids[i].length) return `${shown} of ${kids[i].length}`;
    return thing.fold ? thing.sub : `${count.toLocaleString("en")} ${thing.of}${count === 1 ? "" : "s"}`;
  }

  function layOut() {
    // In a path, what is folded in the whole picture stands there by itself.
    const unfold = (i) => (things[i].fold && isPathView() && isOpen(i) && !openPath.has(i) ? viewKids(i) : [i]);
    const tops = things.map((_, i) => i).filter((i) => things[i].parent === undefined && inView(i)).sort((a, b) => order[a] - order[b]).flatMap(unfold);
    const cells = new Map();
    for (const i of tops) {
      const key = `${things[i].band} ${things[i].column}`;
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(measure(i));
    }
    const stack = (band, column) => cells.get(`${band} ${column}`) || [];
    const tall = (boxes) => boxes.reduce((sum, box) => sum + box.h + GAP_Y, -GAP_Y);
    const used = columns.map((_, column) => Math.max(0, ...bands.flatMap((_, band) => stack(band, column).map((box) => box.w))));
    const left = [];
    let x = 0;
    for (const width of used) { left.push(x); if (width) x += width + GAP_X; }
    const right = x - GAP_X;
    const elements = [];
    columns.forEach((label, column) => {
      if (used[column]) elements.push({ group: "nodes", classes: "head", selectable: false, data: { id: `h${column}`, label, width: Math.max(used[column], W) }, position: { x: left[column] + used[column] / 2, y: -66 } });
    });
    places = new Map();
    reps = things.map(() => -1);
    let y = 0;
    bands.forEach((label, band) => {
      const heights = columns.map((_, column) => (stack(band, column).length ? tall(stack(band, column)) : 0));
      const height = Math.max(...heights);
      if (!height) return;
      elements.push({ group: "nodes", classes: "band", selectable: false, data: { id: `b${band}`, label, width: right + 32, height: height + 64 }, position: { x: right / 2, y: y + height / 2 - 10 } });
      columns.forEach((_, column) => {
        let top = y + (height - heights[column]) / 2;
        for (const box of stack(band, column)) {
          place(box, left[column] + (used[column] - box.w) / 2, top, elements, 1);
          top += box.h + GAP_Y;
        }
      });
      y += height + 64 + BAND_GAP;
    });
    return elements;
  }

  function place(box, x, y, elements, depth) {
    const { i, w, h, parts } = box;
    places.set(i, { x: x + w / 2, y: y + h / 2, w, h });
    elements.push(nodeOf(i, box, { x: x + w / 2, y: y + h / 2 }, depth));
    reps[i] = i;
    if (parts) for (const part of parts) place(part, x + part.x, y + part.y, elements, depth + 1);
    else for (const child of kids[i]) hide(child, i);
  }
  function hide(i, rep) {
    if (inView(i)) reps[i] = rep;
    for (const child of kids[i]) hide(child, rep);
  }

  function nodeOf(i, box, position, depth) {
    const thing = things[i];
    const isBox = Boolean(box.parts);
    const list = marksOf(i);
    const pills = list.length && !isBox ? pillsUri(list) : null;
    const picture = isBox ? "" : pictureOf(thing);
    const [width, height] = thing.size || [1, 1];
    const share = Math.min(38 / width, 40 / height);
    const [iconW, iconH] = picture ? [width * share, height * share] : [16, 16];
    const inset = picture ? iconW + 12 : 31;
    const room = isBox ? box.w - 20 : box.w - inset - 5;
    const lines = isBox ? [thing.label] : [thing.label, subOf(i)];
    const images = isBox ? [] : [picture || iconUri(iconKind(thing), palette.kinds[kinds.indexOf(iconKind(thing))])];
    if (pills) images.push(pills.uri);
    const pillsX = lines[1] ? 8 : inset;
    const pillsW = pills ? Math.min(pills.width * 1.15, box.w - pillsX - 4) : 0, pillsH = pills ? (14 * pillsW) / pills.width : 0;
    return {
      group: "nodes",
      classes: `thing${isBox ? " box" : ""}${kids[i].length && !isBox ? " shut" : ""} ${list.map((mark) => `mark-${marks[mark].replace(" ", "-")}`).join(" ")}`,
      data: {
        id: `n${i}`, i, label: lines.filter(Boolean).map((line) => shorten(line, room, isBox ? 13 : FONT, isBox ? 600 : 400)).join("\n"), width: box.w, height: box.h, colour: palette.kinds[thing.kind], depth,
        shift: isBox ? 0 : inset - box.w, drop: pills ? -11 : 0, images,
        xs: [picture ? "6px" : "8px", `${pillsX}px`].slice(0, images.length), ys: [`${(box.h - iconH) / 2 + (pills && lines[1] ? -11 : 0)}px`, `${box.h - 22}px`].slice(0, images.length),
        ws: [`${iconW}px`, `${pillsW}px`].slice(0, images.length), hs: [`${iconH}px`, `${pillsH}px`].slice(0, images.length),
      },
      position,
    };
  }

  const ruler = document.createElement("canvas").getContext("2d");
  function lengthOf(text, size, weight = 400) {
    ruler.font = `${weight} ${size}px ${FAMILY}`;
    return ruler.measureText(text).width;
  }
  function shorten(text, room, size, weight) {
    if (lengthOf(text, size, weight) <= room) return text;
    let length = text.length - 1;
    while (length > 1 && lengthOf(`${text.slice(0, length)}\u2026`, size, weight) > room) length--;
    return `${text.slice(0, length)}\u2026`;
  }

  /** The lines between what is drawn. */
  function linesOf() {
    const found = new Map();
    const add = (source, target, from, to) => {
      const a = reps[source], b = reps[target];
      if (a < 0 || b < 0 || a === b) return;
      const key = `${a} ${b}`;
      if (!found.has(key)) found.set(key, { a, b, pairs: [] });
      found.get(key).pairs.push([from, to]);
    };
    const isDrawn = (i) => reps[i] === i;
    const opened = (i) => isDrawn(i) && isOpen(i) && !things[kids[i][0]].outs;
    for (const [source, reader] of record.edges) {
      if (isPathView() && !(state.path.all.has(source) && state.path.all.has(reader))) continue;
      const items = opened(source) ? viewKids(source) : [];
      if (things[source].of === "video" && things[reader].of === "clip" && opened(source) && opened(reader)) continue; // the cuts say it
      if (items.length && items.length <= 4) {
        for (const item of items) if (!holders.has(reader) || filesOf[item].has(reader) || things[item].kind !== kinds.indexOf("clip")) add(item, reader, item, reader);
      } else add(source, reader, source, reader);
    }
    for (const [video, clip] of record.cuts) if (isDrawn(video) && isDrawn(clip)) add(video, clip, video, clip);
    return [...found.values()].map(({ a, b, pairs }) => ({
      group: "edges", classes: "line", data: { id: `e${a}_${b}`, source: `n${a}`, target: `n${b}`, pairs, ...bend(places.get(a), places.get(b)) },
    }));
  }
  /** Control points of a line that leaves to the right and arrives from the left. */
  function bend(from, to) {
    const dx = to.x - to.w / 2 - from.x - from.w / 2, dy = to.y - from.y, square = dx * dx + dy * dy || 1, length = Math.sqrt(square);
    const weights = [(dx * dx) / 2 / square, ((dx * dx) / 2 + dy * dy) / square];
    const off = (dx * dy) / 2 / length;
    return { weights, bends: [-off, off] };
  }

  const style = () => [
    { selector: "node", style: { "label": "data(label)", "width": "data(width)", "height": "data(height)", "font-family": FAMILY, "font-size": FONT, "text-wrap": "wrap", "text-max-width": 2000, "color": palette.ink, "shape": "round-rectangle", "border-width": 1, "background-color": palette.bg, "events": "no", "min-zoomed-font-size": 4 } },
    { selector: ".band", style: { "background-color": palette.band, "border-width": 0, "corner-radius": 14, "z-index": 0, "text-valign": "top", "text-halign": "left", "text-margin-x": (node) => lengthOf(node.data("label"), 13, 600) + 12, "text-margin-y": 22, "color": palette.muted, "font-size": 13, "font-weight": 600, "z-index-compare": "manual" } },
    { selector: ".head", style: { "background-opacity": 0, "border-width": 0, "height": 20, "color": palette.muted, "font-size": 13, "text-valign": "center", "text-max-width": "data(width)" } },
    { selector: ".thing", style: {
      "events": "yes", "z-index-compare": "manual", "z-index": (node) => 10 + node.data("depth"), "border-color": "data(colour)", "corner-radius": 7,
      "text-halign": "right", "text-valign": "center", "text-justification": "left", "text-margin-x": "data(shift)", "text-margin-y": "data(drop)", "line-height": 1.25,
      "background-image": (node) => node.data("images"), "background-position-x": (node) => node.data("xs"), "background-position-y": (node) => node.data("ys"),
      "background-width": (node) => node.data("ws"), "background-height": (node) => node.data("hs"), "background-fit": (node) => node.data("images").map(() => "none"),
      "background-image-smoothing": (node) => node.data("images").map(() => "yes"), "background-clip": (node) => node.data("images").map(() => "node") } },
    { selector: ".shut", style: { "border-width": 1, "outline-width": 1, "outline-color": palette.line, "outline-offset": 2.5 } },
    { selector: ".box", style: { "background-color": palette.bg, "background-opacity": 0.65, "background-image": "none", "border-color": palette.line, "text-valign": "top", "text-halign": "center", "text-margin-y": 24, "text-margin-x": 0, "corner-radius": 10, "font-size": 13, "color": palette.muted, "font-weight": 600 } },
    { selector: ".mark-stale", style: { "border-style": "dashed", "border-width": 2 } },
    { selector: ".mark-withdrawn", style: { "border-style": "double", "border-width": 5, "border-color": palette.marks[0] } },
    { selector: ".line", style: {
      "curve-style": "unbundled-bezier", "edge-distances": "endpoints", "source-endpoint": "50% 0%", "target-endpoint": "-50% 0%", "control-point-weights": "data(weights)", "control-point-distances": "data(bends)",
      "width": 1.2, "line-color": palette.line, "target-arrow-shape": "triangle", "target-arrow-color": palette.line, "arrow-scale": 0.7, "events": "no", "z-index-compare": "manual", "z-index": 9 } },
    { selector: ".dim", style: { "opacity": 0.26 } },
    { selector: ".line.dim", style: { "opacity": 0.25 } },
    { selector: ".line.up", style: { "line-color": palette.up, "target-arrow-color": palette.up, "width": 1.8 } },
    { selector: ".line.down", style: { "line-color": palette.down, "target-arrow-color": palette.down, "width": 1.8, "line-style": "dashed", "line-dash-pattern": [6, 3] } },
    { selector: ".chosen", style: { "border-width": 3.5, "border-color": palette.ink, "z-index": 40 } },
    { selector: ".chosen.box", style: { "z-index": 10 } },
    { selector: ".cursor", style: { "outline-width": 3, "outline-color": palette.up, "outline-offset": 4 } },
    { selector: "core", style: { "active-bg-size": 0 } },
  ];

  const graph = byId("graph");
  const cy = cytoscape({ container: byId("canvas"), style: style(), layout: { name: "preset" }, minZoom: 0.04, maxZoom: 3, autoungrabify: true, autounselectify: true, boxSelectionEnabled: false });

  function redraw({ fit = false } = {}) {
    const nodes = layOut();
    cy.batch(() => {
      cy.elements().remove();
      cy.add([...nodes, ...linesOf()]);
    });
    paint();
    if (fit) showAll();
  }
  /** Colours alone: what is chosen, above and below it, and what a filter leaves out. */
  function paint() {
    const { path } = state;
    const hits = new Set();
    if (isFiltering()) things.forEach((thing, i) => { if (!thing.fold && matches(i) && reps[i] >= 0) hits.add(reps[i]); });
    cy.batch(() => {
      cy.nodes(".thing").forEach((node) => {
        const i = node.data("i");
        const isOut = isFiltering() ? !hits.has(i) && !node.hasClass("box") : path !== null && !path.all.has(i);
        node.toggleClass("dim", isOut);
        node.toggleClass("chosen", i === state.selected);
        node.toggleClass("cursor", i === state.cursor && document.activeElement === graph);
      });
      cy.edges().forEach((edge) => {
        const is = (part) => path !== null && edge.data("pairs").some(([a, b]) => {
          const set = path[part];
          const near = (i) => path.own.has(i) || (path.around.has(i) && things[state.selected].parent === i);
          return (set.has(a) || near(a)) && (set.has(b) || near(b));
        });
        const isUp = is("up"), isDown = !isUp && is("down");
        edge.toggleClass("up", isUp);
        edge.toggleClass("down", isDown);
        edge.toggleClass("dim", isFiltering() || (path !== null && !isUp && !isDown));
      });
    });
  }
  /** Everything on the screen, above the buttons; of much, the upper left corner at a size that can be read. */
  function showAll() {
    cy.resize();
    const box = cy.elements().boundingBox();
    const side = 16, below = 52, width = cy.width() - 2 * side, height = cy.height() - side - below;
    const whole = Math.min(1.15, width / box.w, height / box.h);
    const zoom = isPathView() ? whole : Math.max(0.42, whole);
    const middle = (room, length) => Math.max(0, (room - length * zoom) / 2);
    cy.viewport({ zoom, pan: { x: side + middle(width, box.w) - box.x1 * zoom, y: side + middle(height, box.h) - box.y1 * zoom } });
  }
  function reveal(i) {
    const rep = reps[i];
    if (rep < 0) return;
    const box = cy.getElementById(`n${rep}`).renderedBoundingBox();
    if (box.x1 < 0 || box.y1 < 0 || box.x2 > cy.width() || box.y2 > cy.height()) cy.center(cy.getElementById(`n${rep}`));
  }
  function toggle(i) {
    if (!kids[i].length) return;
    const before = isOpen(i);
    if (isPathView()) openPath.set(i, !before);
    else if (before) openAll.delete(i);
    else openAll.add(i);
    const at = places.get(i);
    redraw();
    const now = places.get(i);
    if (at && now) cy.panBy({ x: (at.x - at.w / 2 - now.x + now.w / 2) * cy.zoom(), y: (at.y - at.h / 2 - now.y + now.h / 2) * cy.zoom() });
    showCard();
    say(`${things[i].name} ${before ? "closed" : `open, ${plural(viewKids(i).length, "thing")} in it`}`);
  }

  // ---- choosing

  function choose(i, { from = "", keepQuery = false } = {}) {
    if (i === state.selected) return;
    const wasPath = isPathView();
    state.selected = i;
    state.cursor = i;
    state.path = i >= 0 ? pathOf(i) : null;
    openPath = new Map();
    if (!keepQuery && i >= 0 && state.query) { state.query = ""; byId("search").value = ""; }
    // In the whole picture a thing inside closed folders shows itself.
    if (i >= 0 && !state.only) for (const parent of ancestors(i)) openAll.add(parent);
    redraw({ fit: isPathView() || wasPath });
    if (i >= 0) reveal(i);
    showCard();
    showTable();
    byId("only").disabled = i < 0;
    byId("clear").hidden = i < 0;
    const hash = i >= 0 ? `#${encodeURIComponent(things[i].key)}` : "";
    history.replaceState(null, "", hash || location.pathname + location.search);
    if (i >= 0) say(`${describe(i)}. ${tellPath()}`);
    else say("Nothing chosen");
    if (from === "table") focusRow(i);
    else if (i >= 0) byId("card").scrollTop = 0;
  }
  const tellPath = () => `Made from ${plural(countPath(state.path.up), "thing")}; ${plural(countPath(state.path.down), "thing")} made from it`;
  const countPath = (set) => [...set].filter((i) => !things[i].fold).length;
  function describe(i) {
    const thing = things[i];
    const words = marksOf(i).map((mark) => marks[mark]);
    return [`${kinds[thing.kind]} ${thing.name}`, thing.sub, ...words].filter(Boolean).join(", ");
  }
  const say = (text) => { byId("live").textContent = text; };

  // ---- the card

  function showCard() {
    const card = byId("card");
    const i = state.selected;
    card.hidden = i < 0;
    if (i < 0) return card.replaceChildren();
    const thing = things[i];
    const parts = [];
    const title = make("h2", {}, thing.name);
    const kind = thing.fold ? "folded" : thing.of ? `${thing.of}s` : kinds[thing.kind];
    parts.push(make("header", {}, icon(thing, 20), title, make("span", { class: "kind" }, kind), ...marksOf(i).map(pill)));
    if (thing.picture) parts.push(make("img", { class: "picture", src: pictureOf(thing), alt: `A frame of ${thing.name}` }));
    const facts = make("dl", {});
    for (const [label, value, link] of thing.facts || [])
      facts.append(make("dt", {}, label), make("dd", {}, link ? make("a", { href: link, rel: "noreferrer noopener", target: "_blank" }, value) : value));
    if (thing.use) facts.append(make("dt", {}, "Commercial use"), make("dd", {}, thing.use));
    parts.push(facts);
    for (const [mark, lines] of Object.entries(thing.marks || {}))
      parts.push(make("div", { class: "why" }, pill(mark), make("ul", {}, ...lines.map((line) => make("li", {}, line)))));
    const duties = (thing.parents || []).filter(([verdict]) => verdict === "yes, with duties");
    if (duties.length)
      parts.push(make("p", { class: "note" }, `Duties: ${duties.map(([, name, licence, duty]) => `${name}, ${licence} (${duty})`).join("; ")}`));
    const files = [...(thing.outs || []).map(([path, md5, size]) => [path, md5, size]), ...(thing.files || []).map(([, path, md5]) => [path, md5, 0])];
    if (files.length) {
      const list = make("ul", { class: "files" }, ...files.map(([path, md5, size]) =>
        make("li", {}, make("code", {}, path), make("span", {}, `${md5}${size ? `, ${size.toLocaleString("en")} bytes` : ""}`))));
      parts.push(make("details", { open: files.length <= 3 }, make("summary", {}, thing.outs ? plural(files.length, "output") : plural(files.length, "file")), list));
    }
    const tools = make("p", { class: "tools" });
    if (kids[i].length) {
      const button = make("button", { type: "button" }, isOpen(i) ? "Close in the picture" : "Open in the picture");
      button.addEventListener("click", () => toggle(i));
      tools.append(button);
    }
    if (thing.ask) tools.append(make("code", { title: "On the command line" }, `inbetween lineage upstream ${/^[\w./:@+-]+$/.test(thing.ask) ? thing.ask : `'${thing.ask.replaceAll("'", "'\\''")}'`}`));
    parts.push(tools);
    card.replaceChildren(...parts);
  }

  // ---- the table

  const table = byId("rows");
  const STEP = 120;
  let rows = []; // thing, or a heading
  let numDrawn = 0;

  function listRows() {
    const real = things.map((_, i) => i).filter((i) => !things[i].fold);
    if (state.path === null || state.query) return real.filter(matches).sort((a, b) => things[a].column - things[b].column || things[a].band - things[b].band || order[a] - order[b]);
    const found = [];
    const put = (title, numbers) => {
      const list = [...numbers].filter((i) => !things[i].fold && passes(i)).sort((a, b) => things[a].column - things[b].column || things[a].kind - things[b].kind || order[a] - order[b]);
      if (list.length) found.push({ title: `${title} (${list.length.toLocaleString("en")})` }, ...list);
    };
    const { path, selected } = state;
    if (things[selected].fold) put("In it", kids[selected]);
    else found.push({ title: "Chosen" }, selected);
    if (kids[selected].length && !things[selected].fold) put("In it", kids[selected].filter((i) => !path.up.has(i)));
    for (const role of [...path.roles.keys()].sort((a, b) => a - b))
      put(role < 0 ? "Made from" : `Made from, through ${things[role].name}`, path.roles.get(role));
    put("Made from it", path.down);
    return found;
  }
  function showTable() {
    rows = listRows();
    numDrawn = 0;
    table.replaceChildren();
    drawMore();
    const shown = rows.filter((row) => typeof row === "number").length;
    const total = things.filter((thing) => !thing.fold).length;
    const { path, selected } = state;
    byId("status").textContent = path !== null && !state.query
      ? `${things[selected].name}: made from ${plural(countPath(path.up), "thing")}, ${countPath(path.down).toLocaleString("en")} made from it`
      : shown === total ? plural(total, "thing") : `${shown.toLocaleString("en")} of ${plural(total, "thing")}`;
    byId("nothing").hidden = shown > 0;
  }
  function drawMore(upTo = numDrawn + STEP) {
    const part = document.createDocumentFragment();
    for (; numDrawn < Math.min(upTo, rows.length); numDrawn++) part.append(drawRow(rows[numDrawn], numDrawn));
    table.append(part);
    byId("more").hidden = numDrawn >= rows.length;
    if (!table.querySelector('tr[tabindex="0"]')) table.querySelector("tr[data-i]")?.setAttribute("tabindex", "0");
  }
  function drawRow(row, at) {
    if (typeof row !== "number") return make("tr", { class: "title", "aria-rowindex": at + 2 }, make("th", { colspan: 2, scope: "rowgroup" }, row.title));
    const thing = things[row];
    const picture = thing.picture ? make("img", { src: pictureOf(thing), alt: "", width: 32, height: 32 }) : icon(thing);
    const where = thing.parent !== undefined || thing.outs ? thing.batch : "";
    const sub = [kinds[thing.kind], thing.sub === thing.batch ? "" : thing.sub, thing.name.startsWith(where) ? "" : where].filter(Boolean).join(", ");
    return make("tr", { "data-i": row, tabindex: "-1", "aria-selected": row === state.selected ? "true" : "false", "aria-rowindex": at + 2 },
      make("td", { class: "name" }, make("div", {}, picture, make("span", {}, make("b", {}, thing.name), make("small", {}, sub), ...marksOf(row).map(pill)))),
      make("td", { class: "use" }, thing.use || ""));
  }
  const rowOf = (i) => table.querySelector(`tr[data-i="${i}"]`);
  function focusRow(i) {
    const at = rows.indexOf(i);
    if (at < 0) return;
    drawMore(Math.max(numDrawn, at + 20));
    const row = rowOf(i);
    for (const other of table.querySelectorAll('tr[tabindex="0"]')) other.setAttribute("tabindex", "-1");
    row.setAttribute("tabindex", "0");
    row.focus();
    row.scrollIntoView({ block: "nearest" });
  }
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && numDrawn < rows.length) drawMore();
  }, { root: null, rootMargin: "400px" }).observe(byId("more"));

  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-i]");
    if (row) choose(Number(row.dataset.i), { from: "table" });
  });
  table.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-i]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const numbers = rows.filter((one) => typeof one === "number");
    const at = numbers.indexOf(Number(row.dataset.i));
    const act = {
      ArrowDown: () => focusRow(numbers[Math.min(numbers.length - 1, at + 1)]),
      ArrowUp: () => (at ? focusRow(numbers[at - 1]) : byId("search").focus()),
      Home: () => focusRow(numbers[0]),
      End: () => focusRow(numbers[numbers.length - 1]),
      PageDown: () => focusRow(numbers[Math.min(numbers.length - 1, at + 10)]),
      PageUp: () => focusRow(numbers[Math.max(0, at - 10)]),
      Enter: () => choose(numbers[at], { from: "table" }),
      " ": () => choose(numbers[at], { from: "table" }),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  // ---- search and filters

  const search = byId("search");
  let waiting = 0;
  search.addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      state.query = search.value.trim();
      showTable();
      paint();
    });
  });
  search.addEventListener("keydown", (event) => {
    const first = rows.find((row) => typeof row === "number");
    if (event.key === "ArrowDown" && first !== undefined) { event.preventDefault(); focusRow(first); }
    if (event.key === "Enter" && first !== undefined && state.query) { event.preventDefault(); choose(first, { from: "table" }); }
  });
  function chip(list, number, label, decoration, count) {
    const button = make("button", { type: "button", class: "chip", "aria-pressed": "false", disabled: count === 0 }, decoration, label, make("span", { class: "count" }, count.toLocaleString("en")));
    button.addEventListener("click", () => {
      if (!list.delete(number)) list.add(number);
      button.setAttribute("aria-pressed", list.has(number));
      showTable();
      paint();
      say(byId("status").textContent);
    });
    return button;
  }
  const real = things.map((_, i) => i).filter((i) => !things[i].fold);
  kinds.forEach((kind, number) => byId("kinds").append(chip(state.kinds, number, kind, icon({ kind: number }), real.filter((i) => things[i].kind === number).length)));
  marks.forEach((mark, number) => byId("marks").append(chip(state.marks, number, "", pill(number), real.filter((i) => (things[i].marks || {})[number]).length)));

  // ---- the picture's own keys and buttons

  cy.on("tap", "node.thing", (event) => choose(event.target.data("i")));
  cy.on("dbltap", "node.thing", (event) => toggle(event.target.data("i")));
  cy.on("tap", (event) => { if (event.target === cy) choose(-1); });
  cy.on("mouseover", "node.thing", (event) => { byId("canvas").style.cursor = "pointer"; byId("canvas").title = describe(event.target.data("i")); });
  cy.on("mouseout", "node.thing", () => { byId("canvas").style.cursor = ""; byId("canvas").title = ""; });

  const zoomBy = (factor) => cy.zoom({ level: cy.zoom() * factor, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
  function move(dx, dy) {
    if (!places.size) return;
    if (!places.has(state.cursor)) { setCursor([...places.keys()][0]); return; }
    const from = places.get(state.cursor);
    let best = -1, least = Infinity;
    const linked = new Set();
    if (dx) for (const edge of cy.getElementById(`n${state.cursor}`)[dx > 0 ? "outgoers" : "incomers"]("edge"))
      linked.add(Number((dx > 0 ? edge.target() : edge.source()).data("i")));
    for (const [i, to] of places) {
      if (i === state.cursor || isOpen(i)) continue;
      const ahead = dx ? (to.x - from.x) * dx : (to.y - from.y) * dy;
      const aside = dx ? Math.abs(to.y - from.y) : Math.abs(to.x - from.x);
      if (ahead < 8) continue;
      const far = ahead + 3 * aside - (linked.has(i) ? 1e5 : 0);
      if (far < least) { least = far; best = i; }
    }
    if (best >= 0) setCursor(best);
  }
  function setCursor(i) {
    state.cursor = i;
    paint();
    reveal(i);
    say(describe(i) + (kids[i].length ? `, ${isOpen(i) ? "open" : "closed"}` : ""));
  }
  graph.addEventListener("keydown", (event) => {
    if (event.target !== graph || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowRight: () => move(1, 0), ArrowLeft: () => move(-1, 0), ArrowDown: () => move(0, 1), ArrowUp: () => move(0, -1),
      Enter: () => { if (state.cursor >= 0) choose(state.cursor); },
      " ": () => { if (state.cursor >= 0) toggle(state.cursor); },
      "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(0.8), "0": showAll,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  graph.addEventListener("focus", () => {
    if (!places.has(state.cursor) && graph.matches(":focus-visible")) move(1, 0);
    else paint();
  });
  graph.addEventListener("blur", paint);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      if (state.query) { state.query = search.value = ""; showTable(); paint(); }
      else if (state.selected >= 0) { choose(-1); if (document.activeElement === document.body) search.focus(); }
      else return;
      event.preventDefault();
    } else if (event.key === "/" && event.target !== search) { event.preventDefault(); search.focus(); }
  });
  byId("in").addEventListener("click", () => zoomBy(1.25));
  byId("out").addEventListener("click", () => zoomBy(0.8));
  byId("fit").addEventListener("click", showAll);
  byId("clear").addEventListener("click", () => { choose(-1); search.focus(); });
  byId("only").addEventListener("click", () => {
    state.only = !state.only;
    byId("only").setAttribute("aria-pressed", state.only);
    if (!state.only) for (const parent of ancestors(state.selected)) openAll.add(parent);
    redraw({ fit: true });
    if (!state.only) reveal(state.selected);
  });
  const MOST = 500; // drawn at once by "open all": beyond, items stay in their folders
  byId("folders").addEventListener("click", () => {
    const isMuch = things.filter((thing, i) => !thing.fold && inView(i)).length > MOST;
    const isMeant = (i) => kids[i].length && inView(i) && (!isMuch || things[i].fold);
    const folders = things.map((_, i) => i).filter(isMeant);
    const close = folders.every(isOpen);
    for (const i of folders) {
      const open = !close;
      if (isPathView() && things[i].fold && isOpen(i) && !openPath.has(i)) continue; // it stands there by itself
      if (isPathView()) openPath.set(i, open);
      else if (open) openAll.add(i);
      else openAll.delete(i);
    }
    redraw({ fit: true });
    say(close ? "All folders closed" : isMuch ? "Folds open; open a folder by itself to see its items" : "All folders open");
  });

  new ResizeObserver(() => cy.resize()).observe(byId("canvas"));
  const recolour = (to) => { palette = to; cy.style(style()); redraw(); };
  darkQuery.addEventListener("change", () => recolour(darkQuery.matches ? PALETTES.dark : PALETTES.light));
  addEventListener("beforeprint", () => {
    const before = palette;
    if (palette !== PALETTES.light) recolour(PALETTES.light);
    byId("print").src = cy.png({ full: true, scale: 2, maxWidth: 5000, maxHeight: 5000, bg: "#ffffff" });
    if (palette !== before) recolour(before);
    drawMore(rows.length);
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  redraw({ fit: true });
  showTable();
  const asked = decodeURIComponent(location.hash.slice(1));
  const first = asked ? things.findIndex((thing) => thing.key === asked || thing.ask === asked) : -1;
  if (first >= 0) choose(first);
  addEventListener("hashchange", () => {
    const wanted = decodeURIComponent(location.hash.slice(1));
    choose(things.findIndex((thing) => thing.key === wanted || thing.ask === wanted));
  });
  document.documentElement.dataset.ready = "true";
  // For tests: where a thing is drawn on the screen, and how the picture stands.
  window.lineagePage = {
    state, things,
    find: (key) => things.findIndex((thing) => thing.key === key),
    drawn: () => [...places.keys()],
    classes: (i) => (reps[i] >= 0 ? cy.getElementById(`n${reps[i]}`).classes() : []),
    placeOf: (i) => { const box = byId("canvas").getBoundingClientRect(), at = cy.getElementById(`n${reps[i]}`).renderedPosition(); return { x: box.x + at.x, y: box.y + at.y }; },
    zoom: () => cy.zoom(),
    isOpen,
  };
})();
