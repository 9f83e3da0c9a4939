// What the viewer shows, in the words of DICOM: which series and image is active, which images are numbered how, and how to
// get to one of them. Images go by SOPInstanceUID and frame everywhere, never by their order.

import { until } from "./waiting.js";

const LIBRARIES = "@ohif/extension-cornerstone.utilityModule.common";
const NO_IMAGES = new Set(["SEG", "RTSTRUCT", "SR", "PR", "KO", "DOC", "RTPLAN", "RTDOSE"]);
const SETTLED_MS = 30;
const READY_MS = 60_000;

/** The name of an image: SOPInstanceUID and frame (from 1). */
export const slot = (sopUid, frame) => `${sopUid}|${frame ?? 1}`;

/** {cornerstone, cornerstoneTools} of OHIF itself. */
export function libraries({ extensionManager }) {
  return extensionManager.getModuleEntry(LIBRARIES).exports.getCornerstoneLibraries();
}

/** {sopUid, frame} that a cornerstone image id stands for, or null. */
export function imageOf(imageId, cornerstone) {
  const sopUid = imageId && cornerstone.metaData.get("instance", imageId)?.SOPInstanceUID;
  if (!sopUid) return null;
  const frame = /\/frames\/(\d+)/.exec(imageId) ?? /[?&]frame=(\d+)/.exec(imageId);
  return { sopUid, frame: frame ? Number(frame[1]) : 1 };
}

export class Viewer {
  /** `services`: {servicesManager, commandsManager, extensionManager} of OHIF. */
  constructor(services) {
    this.services = services;
    this.managed = services.servicesManager.services;
    this.listeners = new Set();
    this.stops = [];
    this.last = "null";
  }

  get cornerstone() {
    return libraries(this.services).cornerstone;
  }

  /** What the active viewport shows: {seriesUid, sopUid, frame, modality, bodyPart, studyUid, viewportId, numImages} or null.
   *
   * `sopUid` and `frame` are null where the viewport shows a cut through the images rather than one of them.
   */
  active() {
    const { activeViewportId: viewportId } = this.managed.viewportGridService.getState();
    const displaySet = this.shownIn(viewportId);
    if (!displaySet) return null;
    const imageIds = this.imageIds(displaySet);
    const current = this.viewport(viewportId)?.getCurrentImageId?.();
    const image = imageOf(current, this.cornerstone);
    const instance = displaySet.instances?.[0] ?? displaySet.images?.[0] ?? displaySet.instance ?? {};
    return {
      studyUid: displaySet.StudyInstanceUID,
      seriesUid: displaySet.SeriesInstanceUID,
      sopUid: image?.sopUid ?? null,
      frame: image?.frame ?? null,
      modality: displaySet.Modality ?? instance.Modality ?? null,
      bodyPart: instance.BodyPartExamined || null,
      viewportId,
      numImages: imageIds.length,
    };
  }

  /** The active viewport's images as it numbers them, slice 1 first: [{sopUid, frame}]; [] for a cut through them. */
  images() {
    const { activeViewportId: viewportId } = this.managed.viewportGridService.getState();
    const displaySet = this.shownIn(viewportId);
    const viewport = this.viewport(viewportId);
    if (!displaySet || !viewport) return [];
    const cornerstone = this.cornerstone;
    const found = isVolume(viewport) ? this.scrolled(viewport, displaySet) : (viewport.getImageIds?.() ?? []);
    return found.map((imageId) => imageOf(imageId, cornerstone)).filter(Boolean);
  }

  /** Ids of a volume's images in the order in which this viewport scrolls through them. */
  scrolled(viewport, displaySet) {
    const normal = viewport.getCamera().viewPlaneNormal;
    const { metaData } = this.cornerstone;
    const places = this.imageIds(displaySet).map((imageId) => {
      const plane = metaData.get("imagePlaneModule", imageId) ?? {};
      return { imageId, along: dot(plane.imagePositionPatient, normal), across: across(plane, normal) };
    });
    if (places.some(({ along, across: away }) => Number.isNaN(along) || away > 0.01)) return [];
    return places.sort((a, b) => a.along - b.along).map(({ imageId }) => imageId);
  }

  /** Call `callback` after what `active` gives has changed; returns what ends that. */
  onChange(callback) {
    if (!this.stops.length) this.watch();
    this.listeners.add(callback);
    return () => {
      this.listeners.delete(callback);
      if (!this.listeners.size) this.dispose();
    };
  }

  /** Show one image, in a viewport that has its series or else in the active one. Raises `Error` in words. */
  async jumpTo(seriesUid, sopUid, frame = 1) {
    const found = this.displaySets(seriesUid).find(({ bySlot }) => bySlot.has(slot(sopUid, frame)));
    if (!found) throw new Error("This image is not in the viewer; open its study first.");
    const imageId = found.bySlot.get(slot(sopUid, frame));
    for (const viewport of await this.viewportsFor(found.displaySet)) await this.scrollTo(viewport, imageId);
  }

  async viewportsFor(displaySet) {
    const { viewportGridService } = this.managed;
    const { activeViewportId } = viewportGridService.getState();
    if (!this.showing(displaySet).length) {
      const displaySetInstanceUIDs = [displaySet.displaySetInstanceUID];
      viewportGridService.setDisplaySetsForViewport({ viewportId: activeViewportId, displaySetInstanceUIDs });
    }
    const ready = () => {
      const found = this.ready(displaySet);
      return found.length ? found : null;
    };
    return until(ready, READY_MS, "The viewer did not get the images ready.");
  }

  async scrollTo(viewport, imageId) {
    if (!isVolume(viewport)) {
      const index = viewport.getImageIds().indexOf(imageId);
      if (index >= 0) await viewport.setImageIdIndex(index);
      viewport.render();
      return;
    }
    const plane = this.cornerstone.metaData.get("imagePlaneModule", imageId);
    if (plane?.imagePositionPatient) viewport.jumpToWorld(centre(plane));
    viewport.render();
  }

  // For segments.js ---------------------------------------------------------------------------------------------------

  /** The parts of a series that the viewer keeps apart: [{displaySet, imageIds, bySlot: Map of slot to image id}]. */
  displaySets(seriesUid) {
    const cornerstone = this.cornerstone;
    const found = this.managed.displaySetService.getDisplaySetsForSeries(seriesUid) ?? [];
    return found
      .filter((displaySet) => !NO_IMAGES.has(displaySet.Modality))
      .map((displaySet) => ({ displaySet, imageIds: this.imageIds(displaySet) }))
      .filter(({ imageIds }) => imageIds.length)
      .map((part) => ({ ...part, bySlot: slotsOf(part.imageIds, cornerstone) }));
  }

  /** Image ids of a display set, also of one that no viewport has shown yet. */
  imageIds(displaySet) {
    if (!displaySet.imageIds?.length) {
      const [source] = this.services.extensionManager.getActiveDataSource();
      displaySet.imageIds = source.getImageIdsForDisplaySet(displaySet) ?? [];
    }
    return displaySet.imageIds;
  }

  /** Ids of the viewports that show a display set first of all. */
  showing(displaySet) {
    const { viewports } = this.managed.viewportGridService.getState();
    return [...viewports.keys()].filter(
      (id) => this.shownIn(id)?.displaySetInstanceUID === displaySet.displaySetInstanceUID,
    );
  }

  /** Cornerstone's viewports that have a display set's images by now. */
  ready(displaySet) {
    const own = new Set(this.imageIds(displaySet));
    const has = (viewport) => viewport?.getImageIds?.().some((imageId) => own.has(imageId));
    return this.showing(displaySet).map((id) => this.viewport(id)).filter(has);
  }

  viewport(viewportId) {
    return this.managed.cornerstoneViewportService?.getCornerstoneViewport(viewportId) ?? null;
  }

  shownIn(viewportId) {
    const shown = this.managed.viewportGridService.getState().viewports.get(viewportId)?.displaySetInstanceUIDs ?? [];
    const sets = shown.map((uid) => this.managed.displaySetService.getDisplaySetByUID(uid)).filter(Boolean);
    return sets.find((displaySet) => !NO_IMAGES.has(displaySet.Modality)) ?? null;
  }

  // Watching ------------------------------------------------------------------------------------------------------------

  watch() {
    const { viewportGridService: grid, cornerstoneViewportService: viewports } = this.managed;
    const { Events } = this.cornerstone.Enums;
    for (const name of ["ACTIVE_VIEWPORT_ID_CHANGED", "GRID_STATE_CHANGED", "VIEWPORTS_READY"]) this.subscribe(grid, name);
    this.subscribe(viewports, "VIEWPORT_DATA_CHANGED");
    for (const name of [Events.STACK_NEW_IMAGE, Events.VOLUME_NEW_IMAGE]) {
      document.addEventListener(name, this.moved, { capture: true }); // these events do not bubble
      this.stops.push(() => document.removeEventListener(name, this.moved, { capture: true }));
    }
    this.last = JSON.stringify(this.active());
  }

  subscribe(service, name) {
    if (service?.EVENTS?.[name]) this.stops.push(service.subscribe(service.EVENTS[name], this.moved).unsubscribe);
  }

  moved = () => {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const now = JSON.stringify(this.active());
      if (now === this.last) return;
      this.last = now;
      for (const callback of [...this.listeners]) callback();
    }, SETTLED_MS);
  };

  /** Stop watching. */
  dispose() {
    clearTimeout(this.timer);
    for (const stop of this.stops.splice(0)) stop();
  }
}

/** Whether a viewport shows a volume, so that slices are cuts through it. */
export const isVolume = (viewport) => typeof viewport?.getVolumeId === "function" || viewport?.type === "orthographic";

function slotsOf(imageIds, cornerstone) {
  const named = imageIds.map((imageId) => [imageOf(imageId, cornerstone), imageId]);
  return new Map(named.filter(([image]) => image).map(([image, imageId]) => [slot(image.sopUid, image.frame), imageId]));
}

function centre({ imagePositionPatient, rowCosines, columnCosines, rows, columns, rowPixelSpacing, columnPixelSpacing }) {
  const [right, down] = [((columns - 1) / 2) * columnPixelSpacing, ((rows - 1) / 2) * rowPixelSpacing];
  return [0, 1, 2].map((i) => Number(imagePositionPatient[i]) + rowCosines[i] * right + columnCosines[i] * down);
}

const dot = (a, b) => (a && b ? [0, 1, 2].reduce((sum, i) => sum + Number(a[i]) * b[i], 0) : NaN);

/** How far a plane is from lying across a normal: 0 for parallel planes. */
function across({ rowCosines, columnCosines }, normal) {
  return Math.max(Math.abs(dot(rowCosines, normal)), Math.abs(dot(columnCosines, normal)));
}
