// The tabs: by mouse, by arrow keys, and by the address (#watch).

const tabs = [...document.querySelectorAll("[role=tab]")];

/** Show the tab that the address names, and call `shown(name)` whenever another one is. */
export function startTabs(shown) {
  const choose = (tab, focus) => {
    for (const each of tabs) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", chosen);
      each.tabIndex = chosen ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
    shown(chosenTab());
  };
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab, true));
    tab.addEventListener("keydown", (event) => {
      const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      choose(tabs.at(next % tabs.length), true);
    });
  });
  choose(tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? tabs[0], false);
}

export const chosenTab = () => tabs.find((tab) => tab.ariaSelected === "true").getAttribute("aria-controls");
