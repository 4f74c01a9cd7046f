"""Labs 01's and 02's explorables for real: a drag in a plot reaches the kernel, and the rollout player plays."""

from tests.browser.test_course import open_lab
from tests.browser.test_dpo_lab import shot


def explorable(lab, title):
    """The explorable of that title, as playwright's locator."""
    return lab.page.locator(".rlhf-stage", has=lab.page.locator(f".form h4:text-is('{title}')")).last


def dragged(lab, canvas, start, end):
    """Drag with the mouse between two places, each in shares of the canvas."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    lab.page.mouse.move(*places[0])
    lab.page.mouse.down()
    lab.page.mouse.move(*places[1], steps=6)
    lab.page.mouse.up()


def test_in_lab_01_a_drag_changes_the_weights_and_the_player_plays(steady):
    lab, page = steady, steady.page
    open_lab(lab, "01_policy_gradients", "import torch", "player = film", "ImportanceExplorable()")
    view = explorable(lab, "Importance sampling")
    lab.poll(view.count, 60)
    ess = view.locator("tr", has=page.locator("th:text-is('ESS')")).locator("td.now")
    before = float(lab.poll(ess.inner_text, 30))
    dragged(lab, view.locator("[data-panel='map'] canvas[role=img]"), (0.5, 0.4), (0.15, 0.6))
    lab.poll(lambda: lab.in_kernel("sampling.mean") < -1.0, 30)
    after = float(ess.inner_text())
    assert after < before / 2
    assert (
        abs(after - lab.in_kernel("float(sampling.estimates()[1].mean())")) < 0.06
    )  # the page shows one digit
    shot(lab, "01-importance-dragged")

    lab.show_cell("player = film")
    player = explorable(lab, "An episode τ")
    lab.poll(player.count, 60)
    dragged(lab, player.locator("[data-panel='states'] canvas[role=img]"), (0.3, 0.5), (0.6, 0.5))
    time = lab.poll(lambda: lab.in_kernel("player.time"), 30)
    assert time > 1
    shot(lab, "01-player-dragged")
    player.get_by_role("button", name="Play step t").click()
    last = lab.in_kernel("len(player.data['rewards'])")
    lab.poll(lambda: lab.in_kernel("player.time") == last, 30)
    assert "the end" in player.locator("[data-panel='choice'] canvas[role=img]").get_attribute("aria-label")


def test_in_lab_02_the_policy_and_delta_are_dragged_and_the_step_follows(steady):
    lab, page = steady, steady.page
    open_lab(
        lab,
        "02_trpo",
        "import torch",
        "import dissect",
        "import StepExplorable",
        "import TrustRegionExplorable",
    )
    view = explorable(lab, "Trust region")
    lab.poll(view.count, 60)
    true_kl, gain = (
        view.locator("tr", has=page.locator(f"th:text-is('{name}')")) for name in ("true KL", "gain in J")
    )
    lab.poll(true_kl.locator("td.now").inner_text, 30)
    dragged(lab, view.locator("[data-panel='policy'] canvas[role=img]"), (0.5, 0.6), (0.5, 0.25))
    lab.poll(lambda: lab.in_kernel("trust.logit_b") > 0.3, 30)
    taken = lab.in_kernel("trust.step().trials[-1].kl")  # TRPO's own functions, in the kernel
    assert abs(float(true_kl.locator("td.now").inner_text()) - taken) < 1e-4

    lab.drag(view.get_by_role("slider"), 0.97)
    lab.poll(lambda: lab.in_kernel("trust.max_kl") > 0.3, 30)
    view.get_by_label("Parameters", exact=True).select_option(label="2θ₁+θ₂ for A, θ₁+2θ₂ for B")
    lab.poll(lambda: lab.in_kernel("trust.parameters") == "mixed", 30)
    trpo, plain = (float(cell.inner_text().replace("−", "-")) for cell in gain.locator("td").all())
    assert trpo > plain
    shot(lab, "02-trust-dragged")

    step = explorable(lab, "One step, taken apart")
    lab.show_cell("measured_step =")
    lab.poll(step.count, 60)
    dragged(lab, step.locator("[data-panel='kl'] canvas[role=img]"), (0.3, 0.5), (0.9, 0.5))
    lab.poll(lambda: lab.in_kernel("measured_step.max_kl") > 0.2, 30)
    shot(lab, "02-step-dragged")
