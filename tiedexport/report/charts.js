// Replace each still chart by a live one, one after the other as they come near the screen.
const options = {
  actions: false, ast: true, renderer: "svg", config, tooltip: { theme: "custom", id: "tooltip" },
};
async function enliven(place) {
  const spec = JSON.parse(place.nextElementSibling.textContent);
  const still = place.firstElementChild;
  place.style.minHeight = `${place.clientHeight}px`;
  try {
    await vegaEmbed(place, spec, options);
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", spec.description);
  } catch (error) {
    place.replaceChildren(still);
    console.error(error);
  }
  place.style.minHeight = "";
}
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((each) => each.isIntersecting)) {
    near.unobserve(entry.target);
    enliven(entry.target);
  }
}, { rootMargin: "400px" });
document.querySelectorAll(".live").forEach((place) => near.observe(place));
// Paper cannot be unfolded.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
});
