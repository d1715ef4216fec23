"""What adapters learn belongs to models, however often these are built anew."""

from proxy.adapters.memory import AdapterMemory


def test_a_rate_is_the_models_until_it_is_forgotten():
    memory = AdapterMemory(b"secret")
    kept, lost = memory.rate(("a", "x")), memory.rate(("a", "y"))
    kept.learn(10_000, 2_000)
    lost.learn(10_000, 2_000)

    memory.forget_others([("a", "x"), ("b", "")])

    assert memory.rate(("a", "x")) is kept
    assert memory.rate(("a", "y")).most(10_000) > lost.most(10_000)
