// Questions that fit the image on the screen. The server knows what the model was trained on; without its help there
// is one question that always fits.

export const EVERYTHING = "Outline every structure that you know.";

export class Suggestions {
  constructor(server) {
    this.server = server;
    this.known = new Map();
  }

  /** Up to four questions for a modality and body part; never raises. */
  async for(image) {
    if (!image) return [];
    const key = `${image.modality ?? ""}|${image.bodyPart ?? ""}`;
    if (!this.known.has(key)) {
      try {
        const { suggestions } = await this.server.suggestions(image.modality, image.bodyPart);
        this.known.set(key, suggestions);
      } catch {
        return [EVERYTHING]; // asked again when the server is back
      }
    }
    return this.known.get(key);
  }
}
