// Masks as the viewer's own segmentations: drawn, edited with its tools, read back. A plane of a mask goes to the image that
// it was made on (SOPInstanceUID and frame), whatever order the viewer has; nothing is paired by position in a list.

import { Colours, hex } from "./colours.js";
import { pairByIdentity } from "./pairing.js";
import { fill, filled, layersOf, maskOf } from "./planes.js";
import { Strokes } from "./strokes.js";
import { imageOf, libraries, slot } from "./viewer.js";
import { until } from "./waiting.js";

const LABELMAP = "Labelmap";
const IMAGES_MS = 20_000;
const VIEWPORT_MS = 60_000;
const IN_3D = "volume3d";

export class Segments {
  /** `services`: {servicesManager, commandsManager, extensionManager} of OHIF; `viewer`: a `Viewer`. */
  constructor(services, viewer) {
    Object.assign(this, { services, viewer, colours: new Colours(), sheets: new Map(), handles: new Map(), callbacks: new Set() });
    this.libraries = libraries(services);
    this.service = services.servicesManager.services.segmentationService;
    this.pairs = pairByIdentity(this.libraries);
    this.strokes = new Strokes(
      (sheet) => this.planesOf(sheet),
      (sheet, values) => this.tell(sheet, values),
    );
    this.stops = [this.listen(), this.followViewports()];
    this.drawings = 0;
  }

  /** Draw a turn's findings as new segmentations; nothing that was there before is touched.
   *
   * `turn`: {id, series: reply of /medsegr/series, stack: n, findings: [{n, label, mask: {sizes, data}}]}. Findings that
   * meet go to different layers. Resolves to a handle once the viewer has them; rejects with an `Error` in words.
   */
  async draw(turn) {
    const handle = this.handleOf(turn);
    const { instances } = handle.stack;
    const findings = turn.findings.map(({ n, label, mask }) => ({ n, label, planes: filled(mask.data, instances.length) }));
    try {
      const parts = await this.parts(handle);
      this.check(turn.findings, findings, handle, parts);
      this.drawings += 1;
      const layers = layersOf(findings);
      for (const layer of layers) for (const part of parts) await this.addSheet(handle, part, layer);
      for (const sheet of handle.sheets) await this.show(sheet);
    } catch (error) {
      for (const sheet of handle.sheets) this.dropSheet(sheet);
      throw error;
    }
    if (!this.handles.has(turn.id)) this.handles.set(turn.id, handle);
    if (findings.length) this.select(handle, findings[0].n);
    return handle;
  }

  /** A new segment without a voxel, for what was missed; the number it got in the turn. It is the one that tools edit next. */
  async addEmpty(turn, label) {
    const handle = this.handles.get(turn.id) ?? this.handleOf(turn);
    this.handles.set(turn.id, handle);
    const n = Math.max(0, ...turn.findings.map((finding) => finding.n), ...handle.findings.keys(), handle.last) + 1;
    handle.last = n;
    const added = [];
    for (const part of await this.parts(handle)) added.push(await this.addSheet(handle, part, [{ n, label, planes: new Map() }]));
    for (const sheet of added) await this.show(sheet);
    this.select(handle, n);
    return n;
  }

  /** What the viewer shows of one finding now: {planes: Map of "sop|frame" to a mask of 0 and 1 in raster order}.
   *
   * Every image of the turn's stack that the viewer has is there; empty planes may share one array. Rejects when the
   * segmentation was deleted in the viewer, since that says nothing about the image.
   */
  async read(handle, n) {
    const finding = this.finding(handle, n);
    const wanted = new Set(handle.stack.instances.map((one) => slot(one.sop, one.frame)));
    const empty = new Map();
    const planes = new Map();
    for (const { sheet, index } of finding.places) {
      if (!finding.gone) this.mustExist(sheet);
      for (const [name, labels] of this.planesOf(sheet)) {
        if (!wanted.has(name)) continue;
        const present = !finding.gone && labels.includes(index);
        if (!present && !empty.has(labels.length)) empty.set(labels.length, new Uint8Array(labels.length));
        planes.set(name, present ? maskOf(labels, index) : empty.get(labels.length));
      }
    }
    return { planes };
  }

  /** Take one finding out of the viewer; `read` gives it as empty from then on. */
  remove(handle, n) {
    const finding = this.finding(handle, n);
    if (finding.gone) return;
    finding.gone = true;
    for (const { sheet, index } of finding.places) {
      if (!this.exists(sheet)) continue;
      const left = [...handle.findings.values()].some((other) => !other.gone && other.places.some((place) => place.sheet === sheet));
      if (!left) {
        this.dropSheet(sheet);
        continue;
      }
      this.strokes.settle();
      for (const labels of this.planesOf(sheet).values()) {
        for (let i = labels.indexOf(index); i >= 0; i = labels.indexOf(index, i + 1)) labels[i] = 0;
      }
      this.strokes.begin(sheet);
      this.quietly(() => this.service.removeSegment(sheet.segmentationId, index));
      this.refresh(sheet);
    }
  }

  /** Take the reader's last stroke back; {handle, ns} of what it had changed, or null where there is none. */
  undo() {
    const undone = this.strokes.undo();
    if (!undone) return null;
    this.refresh(undone.sheet);
    this.tell(undone.sheet, undone.values);
    return { handle: undone.sheet.handle, ns: this.numbersOf(undone.sheet, undone.values) };
  }

  /** Take a whole drawing out of the viewer, as if `draw` had not been called. */
  undoDrawing(handle) {
    for (const sheet of [...handle.sheets]) this.dropSheet(sheet);
    handle.findings.clear();
    for (const [id, one] of this.handles) if (one === handle) this.handles.delete(id);
  }

  /** "#rrggbb" of a finding, also after the reader chose another colour in the viewer. */
  colour(handle, n) {
    const { places, colour } = this.finding(handle, n);
    for (const { sheet, index } of places) {
      const [viewportId] = this.exists(sheet) ? this.service.getViewportIdsWithSegmentation(sheet.segmentationId) : [];
      const shown = viewportId && this.service.getSegmentColor(viewportId, sheet.segmentationId, index);
      if (shown) return hex(shown);
    }
    return hex(colour);
  }

  /** Make a finding the one that the viewer's tools edit. */
  select(handle, n) {
    for (const { sheet, index } of this.finding(handle, n).places) {
      if (!this.exists(sheet)) continue;
      for (const viewportId of this.service.getViewportIdsWithSegmentation(sheet.segmentationId)) {
        this.service.setActiveSegmentation(viewportId, sheet.segmentationId);
      }
      this.service.setActiveSegment(sheet.segmentationId, index);
    }
  }

  rename(handle, n, label) {
    const finding = this.finding(handle, n);
    finding.label = label;
    for (const { sheet, index } of finding.places) {
      if (this.exists(sheet)) this.service.setSegmentLabel(sheet.segmentationId, index, label);
    }
  }

  /** `callback(handle, n)` after each of the reader's strokes, for every finding that it changed; returns what ends that. */
  onEdited(callback) {
    this.callbacks.add(callback);
    return () => this.callbacks.delete(callback);
  }

  /** Stop listening; the segmentations are OHIF's to clear. */
  dispose() {
    this.disposed = true;
    for (const stop of this.stops.splice(0)) stop();
    this.strokes.dispose();
    this.callbacks.clear();
  }

  // Drawing -------------------------------------------------------------------------------------------------------------

  handleOf(turn) {
    const stack = turn.series.stacks.find((one) => one.n === turn.stack) ?? turn.series.stacks[0];
    return { turnId: turn.id, seriesUid: turn.series.series, stack, findings: new Map(), sheets: [], last: 0 };
  }

  /** The viewer's display sets that hold the stack's images; waits for them while a study is still loading. */
  async parts(handle) {
    const names = handle.stack.instances.map((one) => slot(one.sop, one.frame));
    const found = () => this.viewer.displaySets(handle.seriesUid).filter(({ bySlot }) => names.some((name) => bySlot.has(name)));
    const sentence = "The images of this answer are not in the viewer; open their study to see the masks.";
    return until(() => (found().length ? found() : null), IMAGES_MS, sentence);
  }

  /** Sizes must agree and no filled plane may be without an image; raises `Error` before anything is drawn. */
  check(given, findings, { stack }, parts) {
    const { metaData } = this.libraries.cornerstone;
    const imageId = (k) => {
      const name = slot(stack.instances[k].sop, stack.instances[k].frame);
      return parts.map(({ bySlot }) => bySlot.get(name)).find(Boolean);
    };
    for (const [i, { label, planes }] of findings.entries()) {
      if (given[i].mask.data.length % stack.instances.length) throw new Error(`The mask of “${label}” does not fit its images.`);
      for (const [k, plane] of planes) {
        if (!imageId(k)) throw new Error(`The viewer has not got an image that “${label}” lies on; load the whole series.`);
        const { rows, columns } = metaData.get("imagePlaneModule", imageId(k));
        if (plane.length !== rows * columns) throw new Error(`The mask of “${label}” is not of the size of the viewer's images.`);
      }
    }
  }

  /** One segmentation of one display set with the findings of a layer, filled but not shown yet. */
  async addSheet(handle, { displaySet, imageIds }, layer) {
    const taken = [...handle.findings.values()].map((finding) => finding.colour);
    for (const { n, label } of layer) {
      if (handle.findings.has(n)) continue;
      const colour = this.colours.of(label, taken);
      taken.push(colour);
      handle.findings.set(n, { n, label, colour, places: [], gone: false });
    }
    displaySet.imageIds ??= imageIds;
    const own = layer.map(({ n, label }, i) => [i + 1, { segmentIndex: i + 1, label, active: i === 0, locked: false, cachedStats: {} }]);
    const segmentationId = await this.service.createLabelmapForDisplaySet(displaySet, {
      label: `MedSeg-R ${this.drawings || 1}: ${layer.map(({ label }) => label).join(", ")}`,
      segments: Object.fromEntries(own),
      segmentationId: `medsegr-${Date.now().toString(36)}-${this.sheets.size}`,
    });
    const sheet = { segmentationId, displaySet, handle, images: this.imagesOf(segmentationId) };
    this.sheets.set(segmentationId, sheet);
    handle.sheets.push(sheet);
    this.fillSheet(sheet, layer);
    this.makeTable(sheet);
    return sheet;
  }

  fillSheet(sheet, layer) {
    const live = this.planesOf(sheet);
    const { instances } = sheet.handle.stack;
    const touched = new Set();
    for (const [i, { n, planes }] of layer.entries()) {
      sheet.handle.findings.get(n).places.push({ sheet, index: i + 1 });
      for (const [k, plane] of planes) {
        const name = slot(instances[k].sop, instances[k].frame);
        if (!live.has(name)) continue; // in another display set
        fill(live.get(name), plane, i + 1);
        touched.add(name);
      }
    }
    this.strokes.begin(sheet, touched);
  }

  /** Map of "sop|frame" to the id of the label map's own image on it. */
  imagesOf(segmentationId) {
    const { cornerstone } = this.libraries;
    const images = new Map();
    for (const imageId of this.service.getSegmentation(segmentationId).representationData[LABELMAP].imageIds) {
      const { referencedImageId } = cornerstone.cache.getImage(imageId);
      const { sopUid, frame } = imageOf(referencedImageId, cornerstone);
      images.set(slot(sopUid, frame), imageId);
      this.pairs.set(imageId, referencedImageId);
    }
    return images;
  }

  /** Map of "sop|frame" to the live bytes of a sheet's label map. */
  planesOf({ images }) {
    const { cache } = this.libraries.cornerstone;
    const found = new Map();
    for (const [name, imageId] of images) {
      const labels = cache.getImage(imageId)?.voxelManager.getScalarData();
      if (labels) found.set(name, labels);
    }
    return found;
  }

  /** One table of colours for all viewports, so that a colour that the reader chooses holds in all of them. */
  makeTable(sheet) {
    const table = [[0, 0, 0, 0]];
    for (const [index, { colour }] of this.segmentsOf(sheet)) table[index] = colour;
    sheet.table = this.libraries.cornerstoneTools.segmentation.config.color.addColorLUT(table);
  }

  /** Give a viewport the sheet's own table; OHIF 3.10 gives every segmentation the same. */
  useTable(viewportId, { segmentationId, table }) {
    const { state, config } = this.libraries.cornerstoneTools.segmentation;
    const shown = state.getSegmentationRepresentations(viewportId, { segmentationId }) ?? [];
    if (shown.some(({ colorLUTIndex }) => colorLUTIndex !== table)) config.color.setColorLUT(viewportId, segmentationId, table);
  }

  /** [[index, finding]] of a sheet. */
  segmentsOf(sheet) {
    const placed = (finding) => finding.places.filter((place) => place.sheet === sheet).map(({ index }) => [index, finding]);
    return [...sheet.handle.findings.values()].flatMap(placed);
  }

  /** Add a sheet to the viewports that show its images, once those are there. */
  async show(sheet) {
    for (const viewportId of this.viewer.showing(sheet.displaySet)) {
      const ready = () => this.viewer.ready(sheet.displaySet).find((viewport) => viewport.id === viewportId);
      const moved = () => !this.viewer.showing(sheet.displaySet).includes(viewportId);
      const viewport = await until(() => ready() ?? moved(), VIEWPORT_MS, "The viewer did not get the images ready to draw on.");
      if (viewport === true || viewport.type === IN_3D || !this.exists(sheet)) continue;
      await this.represent(viewportId, sheet);
    }
  }

  async represent(viewportId, sheet) {
    const { segmentationId } = sheet;
    if (!this.service.getSegmentationRepresentations(viewportId, { segmentationId }).length) {
      await this.service.addSegmentationRepresentation(viewportId, { segmentationId, type: LABELMAP });
    }
    this.useTable(viewportId, sheet);
  }

  dropSheet(sheet) {
    this.strokes.forget(sheet);
    this.sheets.delete(sheet.segmentationId);
    sheet.handle.sheets = sheet.handle.sheets.filter((other) => other !== sheet);
    if (this.exists(sheet)) this.quietly(() => this.service.remove(sheet.segmentationId));
  }

  // Following the reader ------------------------------------------------------------------------------------------------

  listen() {
    const { cornerstone, cornerstoneTools } = this.libraries;
    const { Events } = cornerstoneTools.Enums;
    const modified = ({ detail }) => {
      const sheet = this.sheets.get(detail.segmentationId);
      if (sheet && !this.quiet) this.strokes.touch(sheet);
    };
    const represented = ({ detail }) => {
      const sheet = this.sheets.get(detail.segmentationId);
      if (sheet?.table !== undefined && detail.viewportId) this.useTable(detail.viewportId, sheet);
    };
    const heard = [
      [Events.SEGMENTATION_DATA_MODIFIED, modified],
      [Events.SEGMENTATION_REPRESENTATION_MODIFIED, represented],
      [Events.SEGMENTATION_REPRESENTATION_ADDED, represented],
    ];
    for (const [name, heed] of heard) cornerstone.eventTarget.addEventListener(name, heed);
    return () => heard.forEach(([name, heed]) => cornerstone.eventTarget.removeEventListener(name, heed));
  }

  /** Show what belongs to the images that a viewport has got newly. */
  followViewports() {
    const { cornerstoneViewportService: viewports } = this.services.servicesManager.services;
    const changed = viewports?.EVENTS?.VIEWPORT_DATA_CHANGED;
    if (!changed) return () => {};
    const showAll = async () => {
      for (const sheet of this.sheets.values()) {
        if (this.exists(sheet)) await this.show(sheet).catch((error) => console.warn(error.message));
      }
    };
    return viewports.subscribe(changed, showAll).unsubscribe;
  }

  tell(sheet, values) {
    for (const n of this.numbersOf(sheet, values)) for (const callback of [...this.callbacks]) callback(sheet.handle, n);
  }

  numbersOf(sheet, values) {
    return this.segmentsOf(sheet).filter(([index]) => values.has(index)).map(([, { n }]) => n);
  }

  /** Let the viewer draw what we changed. */
  refresh(sheet) {
    const { triggerSegmentationEvents } = this.libraries.cornerstoneTools.segmentation;
    if (this.exists(sheet)) this.quietly(() => triggerSegmentationEvents.triggerSegmentationDataModified(sheet.segmentationId));
  }

  quietly(change) {
    this.quiet = true;
    try {
      change();
    } finally {
      this.quiet = false;
    }
  }

  exists(sheet) {
    return Boolean(this.service.getSegmentation(sheet.segmentationId));
  }

  mustExist(sheet) {
    if (!this.exists(sheet)) throw new Error("The mask of this answer was deleted in the viewer; draw it again first.");
  }

  finding(handle, n) {
    const found = handle?.findings.get(n);
    if (!found) throw new Error(`Finding ${n} of this answer is not drawn.`);
    return found;
  }
}
