// Languages: codes (ISO 639-3, with a script where FLORES-200 gives one) to names and tags. Pure.

const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });
const scripts = new Intl.DisplayNames(["en"], { type: "script", fallback: "none" });

/** @param {string} code `fra` or `fra_Latn` @returns {string} its English name, or the code */
export function languageName(code) {
  const [language] = code.split("_");
  try {
    return names.of(Intl.getCanonicalLocales(language)[0]) ?? code;
  } catch {
    return code;
  }
}

/** For `lang` attributes: voices and fonts go by it. */
export function languageTag(code) {
  try {
    return Intl.getCanonicalLocales(code.replace("_", "-"))[0];
  } catch {
    return "";
  }
}

/** Codes and names in the order of the names; the script is named where a language has several. */
export function namedLanguages(codes) {
  const count = new Map();
  for (const code of codes) count.set(languageName(code), (count.get(languageName(code)) ?? 0) + 1);
  const named = codes.map((code) => {
    const name = languageName(code);
    const script = code.split("_")[1];
    return { code, name: count.get(name) > 1 && script ? `${name} (${scripts.of(script) ?? script})` : name };
  });
  return named.sort((a, b) => a.name.localeCompare(b.name, "en"));
}
