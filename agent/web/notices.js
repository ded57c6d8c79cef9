// Notices: what went wrong and what to do about it, one at a time, above everything else that is said.

export class Notices {
  /** @param {HTMLElement} root with parts `title`, `steps`, `action` and `dismiss` */
  constructor(root) {
    this.root = root;
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    Object.assign(this, { title: find("title"), steps: find("steps"), action: find("action") });
    this.topic = null;
    find("dismiss").addEventListener("click", () => this.clear());
    this.action.addEventListener("click", () => {
      this.clear();
      this.act();
    });
  }

  /**
   * @param {string} topic a new notice replaces any other; `clear` takes off those of one topic
   * @param {string} title
   * @param {string[]} steps
   * @param {{label: string, act: () => void}} [action]
   */
  show(topic, title, steps = [], action) {
    this.topic = topic;
    this.title.textContent = title;
    this.steps.replaceChildren(
      ...steps.map((step) => {
        const item = document.createElement("li");
        item.textContent = step;
        return item;
      }),
    );
    this.steps.hidden = !steps.length;
    this.action.hidden = !action;
    this.action.textContent = action?.label ?? "";
    this.act = action?.act;
    this.root.hidden = false;
  }

  /** @param {string} [topic] only this */
  clear(topic = this.topic) {
    if (topic !== this.topic) return;
    this.topic = null;
    this.root.hidden = true;
  }
}
