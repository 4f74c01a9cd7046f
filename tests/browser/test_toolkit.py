"""What boards and explorables share, for real: sliders by keyboard, number boxes, "?" cards, the notebook's theme."""

CELLS = "window.jupyterapp.shell.currentWidget.content.widgets.length"


def test_sliders_boxes_and_cards_work_alike_and_keys_are_no_shortcuts(steady):
    lab, page = steady, steady.page
    lab.write(
        "toolkit.ipynb",
        "from rlhflab.explore.clip import ClipExplorable\nclip = ClipExplorable()\nclip",
        "from rlhflab import Board, recipes\nboard = Board(recipes.DPO(steps=5), title='Toolkit')\nboard",
    )
    lab.open("toolkit.ipynb")
    lab.run_all()
    clip, board = page.locator(".rlhf-stage").last, lab.board("Toolkit")
    lab.poll(lambda: clip.count() and board.count(), 120)
    for view, label, value in (
        (clip, "clip ε", "clip.clip_range"),
        (board, "β", "board.frame()['knobs']['beta']['value']"),
    ):
        slider, box = view.get_by_role("slider", name=label), view.get_by_label(f"{label}, value")
        before = lab.in_kernel(value)
        slider.focus()
        slider.press("ArrowRight")
        lab.poll(lambda value=value, before=before: lab.in_kernel(value) > before, 30)
        cells = page.evaluate(CELLS)
        slider.press("b")  # in command mode JupyterLab would insert a cell
        box.fill("0.35")
        box.press("Enter")
        lab.poll(lambda value=value: lab.in_kernel(value) == 0.35, 30)
        box.fill("-7")
        assert box.get_attribute("aria-invalid") == "true"
        box.press("Tab")
        assert box.input_value() == "0.35" and box.get_attribute("aria-invalid") is None
        assert lab.in_kernel(value) == 0.35 and page.evaluate(CELLS) == cells
        ask = view.get_by_role("button", name="Formula").first
        formula = view.locator(".rlhf-formula").first
        for close in (
            lambda ask=ask: ask.press("Escape"),
            lambda view=view: view.locator("h4").first.click(),
        ):
            ask.click()
            assert formula.is_visible() and ask.get_attribute("aria-expanded") == "true"
            close()
            assert formula.is_hidden()


def test_pages_follow_the_theme_also_where_they_are_out_of_sight(steady):
    lab, page = steady, steady.page
    cells = ["from rlhflab.explore.clip import ClipExplorable\nClipExplorable()", *["ClipExplorable()"] * 3]
    lab.write("theme.ipynb", *cells, "print('end')")
    lab.open("theme.ipynb")
    lab.run_all()
    views = page.locator(".rlhf-stage")
    lab.poll(lambda: views.count() == 4, 60)
    page.wait_for_timeout(2500)  # the first one is drawn, in sight
    change = "window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab %s' }), null"
    lab.show_cell("end")
    page.wait_for_timeout(1000)
    page.evaluate(change % "Dark")
    page.wait_for_timeout(2500)
    for view in views.all():
        view.scroll_into_view_if_needed()
        lab.poll(
            lambda view=view: view.get_attribute("data-dark") is not None, 10
        )  # set where plots are drawn
    page.evaluate(change % "Light")
    lab.poll(lambda: views.last.get_attribute("data-dark") is None, 10)
