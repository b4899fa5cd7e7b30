"""Lesson 17: cached decoding against the model that remembers nothing."""

import numpy as np
import pytest

from tinytorch import GPT, Decoder, KVCache, generate, generate_cached, manual_seed, no_grad
from tinytorch.activations import num_threads, set_num_threads
from tinytorch.memoization import advance, attend, new_caches


def model_of(context=8, dtype=np.float64, seed=0):
    manual_seed(seed)
    model, draw = GPT(13, 8, 2, 2, context), np.random.default_rng(seed)
    for p in model.parameters():
        p.data = (p.data + 0.3 * draw.standard_normal(p.shape)).astype(dtype)
    return model


def uncached(model, ids):
    with no_grad():
        return model(np.asarray(ids)[:, -model.context :]).numpy()[:, -1]


@pytest.mark.parametrize("dtype,limit", [(np.float32, 1e-4), (np.float64, 1e-10)])
@pytest.mark.parametrize("threads,batch", [(1, 1), (1, 17), (2, 17), (3, 40)])
def test_steps_are_those_of_the_uncached_model(threads, batch, dtype, limit):
    before, model = num_threads(), model_of(dtype=dtype)
    ids = np.random.default_rng(1).integers(0, 13, (batch, 11))
    decoder = Decoder(model, batch)
    try:
        set_num_threads(threads)
        for t in range(11):  # from an empty text, past the context of 8
            got = decoder.step(ids[:, t])
            assert got.dtype == dtype
            np.testing.assert_allclose(got, uncached(model, ids[:, : t + 1]), atol=limit)
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 3}, {"seed": 4, "top_k": 3}, {"stop": 5}])
@pytest.mark.parametrize("length,n", [(1, 12), (8, 4), (11, 3), (3, 0)])
def test_generate_cached(options, length, n):
    model, ids = model_of(), np.random.default_rng(2).integers(0, 13, (3, length))
    assert generate_cached(model, ids, n, **options) == generate(model, ids, n, **options).tolist()


def test_prompts_of_unequal_lengths():
    model, prompts = model_of(), [[1], [2, 3, 4], [5] * 8, list(range(10))]
    got = generate_cached(model, prompts, 10, temperature=0)
    assert got == [generate(model, [p], 10, temperature=0).tolist()[0] for p in prompts]


def test_reset_and_prefill_forget():
    model = model_of()
    decoder = Decoder(model, 2)
    decoder.step([3, 4])
    decoder.reset()
    np.testing.assert_allclose(decoder.step([1, 2]), uncached(model, [[1], [2]]))
    np.testing.assert_allclose(decoder.prefill([[5, 6], [7, 8]]), uncached(model, [[5, 6], [7, 8]]))


def test_caches_with_the_model():
    model, ids = model_of(), np.random.default_rng(3).integers(0, 13, (2, 8))
    caches = new_caches(model, 2)
    advance(model, ids[:, :5], caches)
    np.testing.assert_allclose(advance(model, ids[:, 5:], caches), uncached(model, ids))
    assert caches[0].length == 8 and caches[0].nbytes == 2 * 2 * 2 * 8 * 4 * 8


def test_attend_like_pytorch():
    torch = pytest.importorskip("torch")
    q, K, V = (
        np.random.default_rng(i).standard_normal(s)
        for i, s in enumerate([(2, 3, 4), (2, 3, 5, 4), (2, 3, 5, 4)])
    )
    theirs = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, (q[:, :, None], K, V)))
    np.testing.assert_allclose(attend(q, K, V), theirs[:, :, 0].numpy())


def test_errors():
    decoder, cache = Decoder(model_of(), 2), KVCache(1, 2, 4, 3)
    with pytest.raises(ValueError, match=r"^step: expected whole numbers of shape \(2,\)"):
        decoder.step([1])
    for bad in ([1, 13], [-1, 2]):
        with pytest.raises(ValueError, match="^step: expected tokens from 0 to 12"):
            decoder.step(bad)
    for prompts in ([[1]], [[1], []]):
        with pytest.raises(ValueError, match="^prefill: expected 2 prompts"):
            decoder.prefill(prompts)
    with pytest.raises(ValueError, match=r"^KVCache: expected keys and values \(1, 2, T, 3\)"):
        cache.append(np.ones((1, 2, 1, 4)), np.ones((1, 2, 1, 4)))
    with pytest.raises(ValueError, match="^KVCache: 0 of 4 positions are used, 5 more do not fit"):
        cache.append(np.ones((1, 2, 5, 3)), np.ones((1, 2, 5, 3)))
    with pytest.raises(ValueError, match="^KVCache: expected sizes of at least 1"):
        KVCache(1, 2, 0, 3)
