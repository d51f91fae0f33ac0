// Times as the reader's own clock and language write them.

export function written(moment) {
  const { lang } = document.documentElement;
  // Britons write other dates than Americans; the page knows only that it is English.
  const own = navigator.languages.find((one) => one.split("-")[0] === lang.split("-")[0]);
  return new Date(moment).toLocaleString(own ?? lang, { dateStyle: "long", timeStyle: "short" });
}

for (const element of document.querySelectorAll("time[datetime]")) {
  element.textContent = written(element.dateTime);
}
