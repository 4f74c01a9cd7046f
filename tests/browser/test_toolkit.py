"""What boards and explorables share, for real: sliders by keyboard, number boxes, "?" cards, the notebook's theme."""

CELLS = "window.jupyterapp.shell.currentWidget.content.widgets.length"


def test_sliders_boxes_and_cards_work_alike_and_keys_are_no_shortcuts(steady):
    lab, page = steady, steady.page
    lab.write(
        "toolkit.ipynb",
        "from rlhflab.explore.clip import ClipExplorable\nclip = ClipExplorable()\nclip",
        "from rlhflab import Board, DPOKnobs, build_dpo\n"
        "board = Board(lambda: build_dpo('micro', steps=5), knobs=DPOKnobs, name='toolkit', title='Toolkit')\nboard",
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


def test_a_page_follows_the_theme_also_when_it_is_out_of_sight(steady):
    lab, page = steady, steady.page
    blank = "print('\\n' * 200)"
    lab.write(
        "theme.ipynb", "from rlhflab.explore.clip import ClipExplorable\nClipExplorable()", blank, blank
    )
    lab.open("theme.ipynb")
    lab.run_all()
    view = page.locator(".rlhf-stage").last
    lab.poll(lambda: view.count() and view.locator("output, td.now").first.inner_text(), 60)
    assert view.get_attribute("data-dark") is None
    lab.show_cell("print")
    page.wait_for_timeout(500)
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
    page.wait_for_timeout(2000)
    lab.show_cell("Clip")
    lab.poll(lambda: view.get_attribute("data-dark") is not None, 10)  # set where the plots are drawn
    page.evaluate(
        "window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' })"
    )
