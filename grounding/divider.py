"""What Gradio's before/after pictures lack (6.31): scrolling by touch, and the keyboard."""

# Left alone, they take every touch, also those that mean the page.
_LET_SCROLL = """document.addEventListener("touchstart", event => {
        const pictures = event.target.closest("#seg-stages .slider-wrap")
        if (!pictures || event.touches.length > 1 || event.target.closest(".outer")) return
        const {a: zoom} = new DOMMatrix(getComputedStyle(pictures.querySelector("img")).transform)
        if (zoom < 1.01) event.stopPropagation()
    }, {capture: true, passive: true})"""
# It listens to the mouse alone, and stops at the edges by itself.
_MOVE_BY_KEYS = """document.addEventListener("keydown", event => {
        const step = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1}[event.key]
        const divider = event.target.closest("#seg-stages .outer")
        if (!step || !divider || event.altKey || event.ctrlKey || event.metaKey) return
        event.preventDefault()
        const {left, width} = divider.getBoundingClientRect(), from = left + width / 2
        const {width: whole} = divider.parentElement.getBoundingClientRect()
        const drag = (target, type, clientX) => target.dispatchEvent(
            new MouseEvent(type, {bubbles: true, cancelable: true, view: window, clientX}))
        drag(divider, "mousedown", from)
        drag(window, "mousemove", from + step * whole / 20)
        drag(window, "mouseup", from + step * whole / 20)
    })"""
MEND_DIVIDER = f"""() => {{
    {_LET_SCROLL}
    {_MOVE_BY_KEYS}
}}"""
