// Wording: what the page says about its connection. Pure.

const CUT = {
  restart: "The server restarts; reconnecting…",
  later: "No room now, or the speaker is away; trying again…",
  unreachable: "The server cannot be reached; trying again…",
  refused: "Not let in; trying again…",
  away: "Cut off while you were away; press any key, or tap anywhere, to go on",
  cut: "Cut off; reconnecting…",
};

/** @param {{state: string, reason: string|null}} connection */
export function connectionText({ state, reason }) {
  if (state === "open") return "Connected";
  if (state === "connecting") return "Connecting…";
  if (state === "elsewhere") return "This conversation goes on in another window";
  if (state === "closed") return "Not let in";
  return CUT[reason] ?? `Cut off: ${reason}; reconnecting…`;
}

const TOKEN = "the link that “noema serve” printed, or the address with #token=… (your NOEMA_TOKEN) behind it.";

/** A browser is not told why. @param {"refused"|"mistyped"} reason @returns {[string, string[]]} */
export function refusal(reason) {
  if (reason === "mistyped") return ["The token is not the right one: no token looks like that.", [`Open ${TOKEN}`]];
  return [
    "The server answers, but does not let this page in.",
    [
      "It may be full: then this page gets in by itself as soon as there is room.",
      `Or the token is missing or not the right one: open ${TOKEN}`,
    ],
  ];
}

/** @param {{state: string, reason: string|null}} connection of a listener */
export function listeningText({ state, reason }) {
  if (state === "open") return "Listening";
  if (state === "closed" && reason === "over") return "The conversation is over";
  if (state === "closed" && ["nothing", "mistyped"].includes(reason)) return "This address is not complete: scan the code again";
  if (state === "closed") return reason ?? "Closed";
  if (reason === "refused") return "Nobody speaks at this link now; trying again…";
  return connectionText({ state, reason });
}
