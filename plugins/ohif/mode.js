// A mode of our own: every study with images in stack viewports, the dialogue and OHIF's segmentation tools at the right.
// Tools and toolbars are those of OHIF's own segmentation mode, whatever its version; without it only navigation is set up.

import { PANEL } from "./extension.js";

const id = "@medsegr/mode";
const BASE = "@ohif/mode-segmentation";
const DEFAULT = "@ohif/extension-default";
const CORNERSTONE = "@ohif/extension-cornerstone";
const SEG = "@ohif/extension-cornerstone-dicom-seg";
const STACK_HANDLER = `${DEFAULT}.sopClassHandlerModule.stack`;
const SEG_HANDLER = `${SEG}.sopClassHandlerModule.dicom-seg`;
const NO_IMAGES = ["SEG", "SR", "PR", "KO", "DOC", "RTSTRUCT", "RTPLAN", "RTDOSE", "ECG", "AU", "HC"];
const extensionDependencies = { [DEFAULT]: "^3.0.0", [CORNERSTONE]: "^3.0.0", [SEG]: "^3.0.0" };

/** OHIF's segmentation mode, or null in a build that has none. */
async function segmentationMode(loadModules) {
  try {
    const [module] = await loadModules([BASE]);
    return await module.modeFactory({ modeConfiguration: {}, loadModules });
  } catch (error) {
    console.warn(`MedSeg-R: ${BASE} cannot be loaded, its tools are left out.`, error);
    return null;
  }
}

/** Window with the left button, pan with the middle one, zoom with the right one, scroll with the wheel. */
function setUpNavigation({ servicesManager, extensionManager }) {
  const { toolNames, Enums } = extensionManager.getModuleEntry(`${CORNERSTONE}.utilityModule.tools`).exports;
  const { Primary, Auxiliary, Secondary, Wheel } = Enums.MouseBindings;
  const bound = { WindowLevel: Primary, Pan: Auxiliary, Zoom: Secondary, StackScroll: Wheel };
  const active = Object.entries(bound).map(([name, mouseButton]) => ({ toolName: toolNames[name], bindings: [{ mouseButton }] }));
  const { toolGroupService } = servicesManager.services;
  for (const group of ["default", "mpr"]) toolGroupService.createToolGroupAndAddTools(group, { active, passive: [], enabled: [], disabled: [] });
}

async function modeFactory({ modeConfiguration, loadModules }) {
  const base = await segmentationMode(loadModules);
  return {
    id,
    routeName: "medsegr",
    displayName: "MedSeg-R: ask the image",
    onModeEnter(services) {
      services.servicesManager.services.measurementService.clearMeasurements();
      if (base) base.onModeEnter(services);
      else setUpNavigation(services);
    },
    onModeExit({ servicesManager }) {
      const { uiDialogService, uiModalService, ...services } = servicesManager.services;
      (uiDialogService.hideAll ?? uiDialogService.dismissAll)?.call(uiDialogService);
      uiModalService.hide();
      for (const name of ["toolGroupService", "syncGroupService", "segmentationService", "cornerstoneViewportService"]) {
        services[name].destroy();
      }
    },
    validationTags: { study: [], series: [] },
    isValidMode({ modalities }) {
      const valid = modalities.split("\\").some((modality) => !NO_IMAGES.includes(modality));
      return { valid, description: "This study has no images to ask about." };
    },
    routes: [
      {
        path: "medsegr",
        layoutTemplate: () => ({
          id: `${DEFAULT}.layoutTemplateModule.viewerLayout`,
          props: {
            leftPanels: [`${DEFAULT}.panelModule.seriesList`],
            leftPanelResizable: true,
            rightPanels: [PANEL, `${CORNERSTONE}.panelModule.panelSegmentationWithTools`],
            rightPanelResizable: true,
            rightPanelClosed: false,
            rightPanelDefaultClosed: false,
            viewports: [
              { namespace: `${CORNERSTONE}.viewportModule.cornerstone`, displaySetsToDisplay: [STACK_HANDLER] },
              { namespace: `${SEG}.viewportModule.dicom-seg`, displaySetsToDisplay: [SEG_HANDLER] },
            ],
          },
        }),
      },
    ],
    extensions: extensionDependencies,
    hangingProtocol: "default",
    sopClassHandlers: [STACK_HANDLER, SEG_HANDLER],
    hotkeys: base?.hotkeys ?? [],
    ...modeConfiguration,
  };
}

export default { id, modeFactory, extensionDependencies };
