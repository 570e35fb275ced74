"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const { labels, types, any } = JSON.parse(byId("data").textContent);
  const cases = [...document.querySelectorAll("article")];
  let unsaved = false;

  const radios = (one, label) => [...one.querySelectorAll(`tr[data-label="${label}"] input`)];
  const valueOf = (one, label) => radios(one, label).find((radio) => radio.checked).value;
  const choose = (one, label, value) => { radios(one, label).find((radio) => radio.value === value).checked = true; };
  const commentOf = (one) => one.querySelector(".comment input").value.trim();
  const isCorrected = (one) => labels.some((label) => valueOf(one, label) !== "") || commentOf(one) !== "";

  // A present type makes "any" present, and an absent "any" makes every type absent, so that the table is consistent.
  function settle(one, label) {
    const value = valueOf(one, label), present = types.filter((type) => valueOf(one, type) === "1");
    const allAbsent = types.every((type) => valueOf(one, type) === "0");
    if (label === any) {
      one.dataset.follows = "";
      if (value === "0") types.forEach((type) => choose(one, type, "0"));
      if (value === "unsure") (allAbsent ? types : present).forEach((type) => choose(one, type, allAbsent ? "" : "unsure"));
      return;
    }
    const ofAny = valueOf(one, any);
    if (present.length && ofAny !== "1") { choose(one, any, "1"); one.dataset.follows = "yes"; }
    if (!present.length && ofAny === "1" && one.dataset.follows) { choose(one, any, ""); one.dataset.follows = ""; }
    if (value !== "1" && value !== "0" && ofAny === "0") choose(one, any, "");
    if (allAbsent && ofAny === "unsure") choose(one, any, "0");
  }

  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function table() {
    const rows = cases.filter(isCorrected).map((one) => {
      const values = labels.map((label) => valueOf(one, label));
      const unsure = labels.filter((_, k) => values[k] === "unsure").join(" ");
      return [one.dataset.sop, one.dataset.series, ...values.map((value) => (value === "unsure" ? "" : value)), unsure, commentOf(one)];
    });
    return [["sop_uid", "series_uid", ...labels, "unsure", "comment"], ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  function show() {
    const count = cases.filter(isCorrected).length;
    cases.forEach((one) => one.classList.toggle("corrected", isCorrected(one)));
    byId("settled").textContent = count;
    byId("save").disabled = count === 0;
    byId("state").textContent = count === 0 ? "nothing to save" : unsaved ? "not saved yet" : "saved";
  }

  cases.forEach((one) => {
    one.addEventListener("input", (event) => {
      if (event.target.type === "radio") settle(one, event.target.closest("tr").dataset.label);
      unsaved = true;
      show();
    });
  });
  byId("save").addEventListener("click", () => {
    const link = document.createElement("a");
    // The byte-order mark tells spreadsheets that the file is UTF-8.
    link.href = URL.createObjectURL(new Blob(["\ufeff", table()], { type: "text/csv" }));
    link.download = "corrections.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
    show();
  });
  window.addEventListener("beforeunload", (event) => { if (unsaved && cases.some(isCorrected)) event.preventDefault(); });
  // Browsers keep the choices when a page is reloaded.
  unsaved = cases.some(isCorrected);
  show();
})();
