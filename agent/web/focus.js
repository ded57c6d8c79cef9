// Focus: where the keyboard goes when what it was on is hidden. Else it would be at the top of the page again.

/** @param {HTMLElement} element @param {boolean} hidden @param {HTMLElement} next gets the keyboard if it was in there */
export function hide(element, hidden, next) {
  const had = element.contains(document.activeElement);
  element.hidden = hidden;
  if (hidden && had) next.focus();
}
