// The extension that OHIF loads at run time from app-config.js: a panel with the dialogue, beside the stock panels.
// A plain ES module; OHIF's own bundle is not touched. If something here fails, viewing goes on.

import { elementComponent } from "./src/react.js";
import { Segments } from "./src/segments.js";
import { Viewer } from "./src/viewer.js";

export const id = "@medsegr/extension";
export const PANEL = `${id}.panelModule.ask`;
const STOCK_PANEL = "monailabel";
const SAMPLE_PANEL = "@ohif/extension-cornerstone.panelModule.panelSegmentation";

let services = null; // {servicesManager, commandsManager, extensionManager}, from registration on
let life = null; // from entering a mode to leaving it: {viewer, segments, stops}

function begin() {
  end();
  const viewer = new Viewer(services);
  life = { viewer, segments: new Segments(services, viewer), stops: [] };
  window.medsegr = { viewer: life.viewer, segments: life.segments, panel: null }; // for tests and the console
  return life;
}

function end() {
  for (const stop of life?.stops ?? []) stop();
  life?.segments.dispose();
  life?.viewer.dispose();
  life = null;
}

/** Put the panel beside MONAI Label's own in its stock mode, as soon as that has made its panels. */
function joinStockPanel({ panelService }) {
  const join = () => {
    const names = panelService.getPanels("right").map((panel) => panel?.name);
    if (names.includes(STOCK_PANEL) && !names.includes("ask")) panelService.addPanel("right", PANEL);
  };
  join();
  return panelService.subscribe(panelService.EVENTS.PANELS_CHANGED, join).unsubscribe;
}

/** Fill OHIF's element with the panel; the panel's modules are loaded when it is shown first. */
function mountPanel(element) {
  let unmount = null;
  let gone = false;
  Promise.all([import("./src/panel.js"), import("./src/server.js"), import("./src/conversation.js")])
    .then(async ([{ mount }, { Server }, { forgetOthers }]) => {
      const server = new Server();
      await server.me().then(({ user }) => forgetOthers(user), () => {}); // away, or the login has ended: nobody else is here
      if (gone) return;
      const { viewer, segments } = life ?? begin();
      unmount = mount(element, { viewer, segments, server });
      window.medsegr.panel = element;
    })
    .catch((error) => {
      console.error(error);
      element.textContent = "The panel of MedSeg-R could not be loaded; reload the page. Viewing is not affected.";
    });
  return () => {
    gone = true;
    unmount?.();
  };
}

/** An element made by OHIF's own React, which tells how such elements are marked. */
function sampleElement(extensionManager) {
  try {
    return extensionManager.getModuleEntry(SAMPLE_PANEL).component({});
  } catch {
    return null; // another build of OHIF; React 18's mark is assumed
  }
}

export default {
  id,
  preRegistration({ servicesManager, commandsManager, extensionManager }) {
    services = { servicesManager, commandsManager, extensionManager };
  },
  onModeEnter() {
    try {
      begin().stops.push(joinStockPanel(services.servicesManager.services));
    } catch (error) {
      console.error("MedSeg-R cannot work in this viewer.", error); // an error here would keep OHIF from showing images
    }
  },
  onModeExit() {
    end();
  },
  getPanelModule() {
    const component = elementComponent(mountPanel, sampleElement(services.extensionManager));
    return [{ name: "ask", iconName: "info", iconLabel: "Ask", label: "Ask the image", component }];
  },
};
