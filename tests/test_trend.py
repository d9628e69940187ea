"""Trend pooling against the article's printed numbers, its NumPy expressions, and what must hold everywhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_bert_trend import TrendPooling
from keras_bert_trend.pooling.trend import _EPSILON
from tests.common import to_numpy

# "I want an apple." through bert-base-uncased, as the article prints it: rows × (i, want, an, apple).
PRINTED_ROWS = np.array(
    [
        [0.99275106, 1.00205731, 0.76726311, 0.72082734],
        [0.7479955, 1.16846883, 0.63782167, 1.39036024],
        [1.23037624, 0.40373796, 0.57493907, 0.25739866],
        [1.319888, 1.21090519, 1.37013197, 0.7479018],
        [0.48407069, 1.15729702, 0.54152751, 0.57587731],
        [0.47308242, 0.61861634, 0.46330488, 0.47692096],
        [1.23776317, 1.2546916, 0.92190945, 1.2607218],
        [1.19664812, 0.51989007, 0.48901123, 0.65525496],
        [0.5389185, 0.98384732, 0.8789593, 0.98946768],
        [0.75819892, 0.80689037, 0.5612824, 1.10385513],
        [0.14660755, 1.10911655, 0.84521955, 1.00496972],
        [0.77081972, 0.79827666, 0.45695013, 0.36948431],
    ]
)
PRINTED_LAST_WANT = [0.44462553, 0.21318859, 1.1400639, -0.05000957, 0.43685108, 0.91370475, -0.6992555, 0.13507934]
PRINTED_LAST_WANT += [-0.42180806, -0.66882026]
PRINTED_TREND_WANT = [0, 0, 0, 0, -0.79848075, 0.6715901, 0.30298436, -1.6455574, 0.1162319, 0]
PRINTED_TREND_APPLE = [3.753544, 1.4458075, -0.56288993, -0.44559467, 0.9137548, 0.33285233, 0, 0, 0, 0]
PRINTED_SUM = [3.753544, 1.4458075, -0.56288993, -0.44559467, 0.11527407, 1.0044425, 0.30298436, -1.6455574]
PRINTED_SUM += [0.1162319, 0]

# Token ids of the toy vocabulary below: kinds[id].
PAD, CLS, SEP, DOT, WORD, PIECE = range(6)
KINDS = np.array([1, 1, 1, 2, 0, 4], dtype="uint8")


def article_trend(first, last):
    """The article's expression, made defined: `np.log(b / a)`, NaN → 0 (and ±inf → 0)."""
    with np.errstate(all="ignore"):
        trend = np.log(last / first)
    return np.where(np.isfinite(trend), trend, 0)


def reference(received, first, last, ids, mask, reading="published"):
    """Trend pooling of one text, written as the article's code goes, in float64 NumPy and plain Python."""
    candidates = [t for t in range(len(ids)) if mask[t] and KINDS[ids[t]] in (0, 4)]
    candidates = candidates or [t for t in range(len(ids)) if mask[t] and not KINDS[ids[t]] & 1]
    if not candidates:
        return np.zeros(first.shape[-1])
    rows = {
        "published": received[0],
        "layers": received.mean(axis=1),
        "all": received.reshape(-1, received.shape[-1]),
    }[reading][:, candidates]
    anchor = int(np.argmax(rows[-1]))
    total = article_trend(first[candidates[anchor]], last[candidates[anchor]])
    if len(candidates) > 1:
        led = rows[np.argmax(rows, axis=1) == anchor]
        led[:, anchor] = -np.inf
        related = int(np.bincount(np.argmax(led, axis=1)).argmax())
        total = total + article_trend(first[candidates[related]], last[candidates[related]])
    return total


def random_case(seed, batch=6, seq=9, layers=2, heads=3, hidden=7, ids=None):
    """Return (outputs, mask, ids) as an encoder would give them, with arbitrary numbers."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, seq + 1, batch)
    if ids is None:
        ids = generator.choice([DOT, WORD, WORD, WORD, PIECE], (batch, seq))
        ids[:, 0] = CLS
        for row, length in enumerate(lengths):
            ids[row, length - 1], ids[row, length:] = SEP, PAD
    mask = (ids != PAD).astype("int32")
    states = generator.normal(size=(2, batch, seq, hidden)).astype("float32")
    outputs = {
        "embedding_output": states[0],
        "sequence_output": states[1],
        "encoder_outputs": [states[1]],
        "attention_received": generator.random((batch, layers, heads, seq)).astype("float32"),
    }
    return outputs, mask, ids.astype("int32")


@pytest.mark.smoke
class TestPrintedNumbers:
    @pytest.fixture
    def case(self):
        """The printed matrix in the places of `[CLS] i want an apple . [SEP]`, all else higher than any of it."""
        received = np.full((1, 1, 12, 7), 9.0, "float32")
        received[0, 0, :, 1:5] = PRINTED_ROWS
        ids = np.array([[CLS, WORD, WORD, WORD, WORD, DOT, SEP]], "int32")
        return received, ids

    def test_anchor_related_word_and_votes(self, case):
        received, ids = case
        chosen = TrendPooling(KINDS).select({"attention_received": received}, np.ones_like(ids), ids)
        np.testing.assert_array_equal(np.flatnonzero(chosen["candidates"][0]), [1, 2, 3, 4])
        np.testing.assert_allclose(chosen["rows"][0, :, 1:5], PRINTED_ROWS, rtol=1e-6)
        assert int(chosen["anchor"][0]) == 2  # "want"
        assert int(chosen["related"][0]) == 4  # "apple"
        # Printed: row argmax, and the runner-ups (counted without "want") in the rows that "want" leads.
        leaders = to_numpy(chosen["leaders"])[0] - 1
        np.testing.assert_array_equal(leaders, [1, 3, 0, 2, 1, 1, 3, 0, 3, 3, 1, 1])
        position_without_want = {1: 0, 3: 1, 4: 2}
        runners_up = [position_without_want[p] for p in to_numpy(chosen["runners_up"])[0][leaders == 1]]
        assert runners_up == [0, 2, 2, 2, 0]
        np.testing.assert_array_equal(chosen["votes"][0], [0, 2, 0, 0, 3, 0, 0])

    def test_trend_and_sum(self, case):
        """The states behind the printed trends: H[12] of "want" as printed, the rest solved from the trends."""
        received, ids = case
        want, apple = np.array(PRINTED_TREND_WANT), np.array(PRINTED_TREND_APPLE)
        last_want, last_apple = np.array(PRINTED_LAST_WANT), np.linspace(0.3, 1.2, 10)
        last, first = np.ones((1, 7, 10)), np.ones((1, 7, 10))
        last[0, 2], last[0, 4] = last_want, last_apple
        # A printed 0 is a negative ratio: the sign flips.
        first[0, 2] = np.where(want == 0, -last_want, last_want / np.exp(want))
        first[0, 4] = np.where(apple == 0, -last_apple, last_apple / np.exp(apple))
        outputs = {
            "attention_received": received,
            "embedding_output": first.astype("float32"),
            "sequence_output": last.astype("float32"),
            "encoder_outputs": [last.astype("float32")],
        }
        got = to_numpy(TrendPooling(KINDS)(outputs, np.ones_like(ids), input_word_ids=ids))[0]
        np.testing.assert_allclose(got, PRINTED_SUM, rtol=1e-6, atol=1e-6)


@given(
    hnp.arrays(np.float32, (2, 24), elements=st.floats(-100, 100, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6))
)
@settings(max_examples=100)
def test_log_ratio_is_the_articles_expression(states):
    """Mixed signs, zeros of both signs, and magnitudes over eight decades."""
    first, last = states
    got = to_numpy(TrendPooling(KINDS)._change(tf.constant(first), tf.constant(last)))
    np.testing.assert_allclose(got, article_trend(first, last), rtol=1e-6, atol=1e-6)


def test_log_ratio_at_every_combination_of_signs_and_zeros():
    first, last = np.meshgrid(np.array([-2.0, -0.0, 0.0, 3.0], "float32"), np.array([-1.0, -0.0, 0.0, 5.0], "float32"))
    got = to_numpy(TrendPooling(KINDS)._change(tf.constant(first), tf.constant(last)))
    expected = np.zeros((4, 4))
    expected[0, 0], expected[3, 3] = np.log(0.5), np.log(5 / 3)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("reading", ["published", "layers", "all"])
@pytest.mark.parametrize("seed", range(5))
def test_whole_batches_against_the_reference(seed, reading):
    outputs, mask, ids = random_case(seed)
    got = to_numpy(TrendPooling(KINDS, reading=reading)(outputs, mask, input_word_ids=ids))
    for row in range(len(ids)):
        expected = reference(
            outputs["attention_received"][row].astype("float64"),
            outputs["embedding_output"][row],
            outputs["sequence_output"][row],
            ids[row],
            mask[row],
            reading,
        )
        np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("seed", range(4))
def test_attended_is_what_the_anchor_attends_to_most(seed, unit):
    outputs, mask, ids = random_case(seed)
    rows, length = ids.shape
    scores = np.random.default_rng(seed).dirichlet(np.ones(length), (2, rows, 3, length)).astype("float32")
    outputs = {**outputs, "attention_scores": list(scores)}
    pooling = TrendPooling(KINDS, reading="attended", unit=unit, measure="difference")
    chosen = {name: to_numpy(x) for name, x in pooling.select(outputs, mask, ids).items() if x is not None}
    layers = TrendPooling(KINDS, reading="layers", unit=unit).select(outputs, mask, ids)
    np.testing.assert_array_equal(chosen["anchor"], layers["anchor"])
    got = to_numpy(pooling(outputs, mask, input_word_ids=ids))
    for row in range(rows):
        words = {}  # first position → positions
        for at in np.flatnonzero(chosen["candidates"][row]):
            pieces = chosen["pieces"][row, at] if unit == "word" else np.arange(length) == at
            words[int(at)] = np.flatnonzero(pieces)
        if len(words) < 2:
            continue
        anchor = int(chosen["anchor"][row])
        attention = scores[:, row].mean(axis=1)[:, words[anchor]].mean(axis=1)  # (blocks, seq)
        others = [at for at in words if at != anchor]
        totals = [attention[:, words[at]].sum() for at in others]
        related = others[int(np.argmax(totals))]
        assert chosen["related"][row] == related
        in_blocks = [others[int(np.argmax([block[words[at]].sum() for at in others]))] for block in attention]
        assert chosen["runners_up"][row].tolist() == in_blocks
        assert chosen["votes"][row].tolist() == np.bincount(in_blocks, minlength=length).tolist()
        moved = outputs["sequence_output"][row] - outputs["embedding_output"][row]
        expected = sum(moved[words[at]].mean(axis=0) for at in (anchor, related))
        np.testing.assert_allclose(got[row], expected, atol=1e-5)


def test_attended_has_no_soft_choice():
    with pytest.raises(ValueError, match="'attended' does not"):
        TrendPooling(KINDS, reading="attended", aggregation="soft")


def signed_log(x):
    return np.sign(x) * np.log1p(np.abs(x))


def test_smooth_trend_and_difference_against_numpy():
    outputs, mask, ids = random_case(3)
    chosen = TrendPooling(KINDS).select(outputs, mask, ids)
    rows = np.arange(len(ids))
    for measure, change in {
        "asinh": lambda first, last: np.arcsinh(last / 0.1) - np.arcsinh(first / 0.1),
        "signed_log": lambda first, last: signed_log(last / 0.1) - signed_log(first / 0.1),
        "difference": lambda first, last: last - first,
    }.items():
        expected = 0
        for which in ("anchor", "related"):
            position, exists = to_numpy(chosen[which]), to_numpy(chosen[f"has_{which}"])[:, None]
            first, last = (outputs[k][rows, position] for k in ("embedding_output", "sequence_output"))
            expected = expected + change(first, last) * exists
        got = TrendPooling(KINDS, measure=measure)(outputs, mask, input_word_ids=ids)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


class TestEdges:
    """One text each: (ids, the candidates' positions)."""

    def pool(self, ids, **arguments):
        outputs, mask, ids = random_case(0, batch=1, seq=len(ids), ids=np.array([ids]))
        pooling = TrendPooling(KINDS, **arguments)
        return to_numpy(pooling(outputs, mask, input_word_ids=ids))[0], outputs

    def test_one_candidate_gives_its_trend_alone(self):
        got, outputs = self.pool([CLS, DOT, WORD, DOT, SEP, PAD])
        expected = article_trend(outputs["embedding_output"][0, 2], outputs["sequence_output"][0, 2])
        np.testing.assert_allclose(got, expected, rtol=1e-5)

    def test_only_punctuation_takes_the_place_of_words(self):
        got, outputs = self.pool([CLS, DOT, SEP, PAD])
        expected = article_trend(outputs["embedding_output"][0, 1], outputs["sequence_output"][0, 1])
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        assert np.any(got != 0)

    @pytest.mark.parametrize("ids", [[CLS, SEP], [CLS, SEP, PAD], [PAD, PAD, PAD]])
    @pytest.mark.parametrize("aggregation", ["anchor_related", "soft", "attention"])
    @pytest.mark.parametrize("unit", ["token", "word"])
    def test_empty_text_is_the_zero_vector(self, ids, aggregation, unit):
        got, _ = self.pool(ids, aggregation=aggregation, unit=unit)
        np.testing.assert_array_equal(got, 0)

    def test_ties_go_to_the_first(self):
        outputs, mask, ids = random_case(0, batch=1, seq=5, ids=np.array([[CLS, WORD, WORD, WORD, SEP]]))
        outputs["attention_received"] = np.ones_like(outputs["attention_received"])
        chosen = TrendPooling(KINDS).select(outputs, mask, ids)
        assert (int(chosen["anchor"][0]), int(chosen["related"][0])) == (1, 2)


class TestWords:
    def test_pieces_count_as_one(self):
        """word + piece, a dot, word: attention is summed over the pieces, states are averaged."""
        ids = np.array([[CLS, WORD, PIECE, DOT, WORD, SEP]])
        outputs, mask, ids = random_case(1, batch=1, seq=6, ids=ids, heads=1, layers=1)
        outputs["attention_received"][0, 0, 0] = [5, 0.4, 0.3, 5, 0.6, 5]
        pooling = TrendPooling(KINDS, unit="word", measure="difference")
        chosen = pooling.select(outputs, mask, ids)
        np.testing.assert_array_equal(np.flatnonzero(chosen["candidates"][0]), [1, 4])
        assert (int(chosen["anchor"][0]), int(chosen["related"][0])) == (1, 4)
        np.testing.assert_allclose(chosen["rows"][0, 0, 1], 0.7, rtol=1e-6)
        change = outputs["sequence_output"][0] - outputs["embedding_output"][0]
        got = to_numpy(pooling(outputs, mask, input_word_ids=ids))[0]
        np.testing.assert_allclose(got, change[1:3].mean(axis=0) + change[4], rtol=1e-5, atol=1e-6)
        # As tokens, the last word alone has more attention than either piece.
        assert int(TrendPooling(KINDS).select(outputs, mask, ids)["anchor"][0]) == 4

    def test_a_piece_that_follows_no_word_begins_one(self):
        outputs, mask, ids = random_case(1, batch=1, seq=5, ids=np.array([[CLS, PIECE, DOT, PIECE, SEP]]))
        chosen = TrendPooling(KINDS, unit="word").select(outputs, mask, ids)
        np.testing.assert_array_equal(np.flatnonzero(chosen["candidates"][0]), [1, 3])

    def test_without_pieces_words_are_tokens(self):
        outputs, mask, ids = random_case(2)
        ids = np.where(ids == PIECE, WORD, ids)
        for aggregation in ("anchor_related", "soft", "attention"):
            token, word = (
                TrendPooling(KINDS, unit=unit, aggregation=aggregation)(outputs, mask, input_word_ids=ids)
                for unit in ("token", "word")
            )
            np.testing.assert_allclose(token, word, rtol=1e-5, atol=1e-5)


def test_attention_aggregation_against_numpy():
    outputs, mask, ids = random_case(4)
    got = to_numpy(TrendPooling(KINDS, aggregation="attention")(outputs, mask, input_word_ids=ids))
    for row in range(len(ids)):
        candidates = [t for t in range(ids.shape[1]) if mask[row, t] and KINDS[ids[row, t]] in (0, 4)]
        candidates = candidates or [t for t in range(ids.shape[1]) if mask[row, t] and not KINDS[ids[row, t]] & 1]
        weights = outputs["attention_received"][row, 0, -1, candidates]
        change = article_trend(outputs["embedding_output"][row], outputs["sequence_output"][row])[candidates]
        expected = (weights / weights.sum()) @ change if candidates else 0
        np.testing.assert_allclose(got[row], expected, rtol=1e-4, atol=1e-5)


def test_soft_choice_becomes_the_hard_one_as_the_temperature_falls():
    outputs, mask, ids = random_case(6, heads=12)
    chosen = {
        name: to_numpy(value)
        for name, value in TrendPooling(KINDS).select(outputs, mask, ids).items()
        if name != "pieces"
    }
    change = outputs["sequence_output"] - outputs["embedding_output"]
    expected = np.stack(
        [
            change[row, chosen["anchor"][row]] * chosen["has_anchor"][row]
            + chosen["votes"][row] / max(chosen["votes"][row].sum(), 1) @ change[row]
            for row in range(len(ids))
        ]
    )
    soft = TrendPooling(KINDS, measure="difference", aggregation="soft", temperature=1e-4)
    np.testing.assert_allclose(soft(outputs, mask, input_word_ids=ids), expected, rtol=1e-4, atol=1e-4)


def test_only_the_soft_choice_has_a_gradient_to_attention():
    outputs, mask, ids = random_case(7)
    received = tf.constant(outputs["attention_received"])
    for aggregation, temperature, flows in (("soft", 0.1, True), ("soft", 1e-4, True), ("anchor_related", 1, False)):
        pooling = TrendPooling(KINDS, measure="signed_log", aggregation=aggregation, temperature=temperature)
        with tf.GradientTape() as tape:
            tape.watch(received)
            pooled = pooling({**outputs, "attention_received": received}, mask, input_word_ids=ids)
        gradient = tape.gradient(pooled, received)
        assert (gradient is not None) is flows
        assert not flows or np.isfinite(gradient).all()
        if temperature == 0.1:
            assert np.abs(gradient[:, 0]).max() > 1e-3


def test_states_of_almost_nothing_have_the_published_trend_and_a_bounded_gradient():
    """A LayerNorm whose gain is 1e-33 makes them; MiniLM has two."""
    first = np.array([[0.3, -2e-33, 5e-33, 1e-37, 3e-20]], "float32")
    last = np.array([[6e-33, -0.7, 4e-33, 10.0, -1.0]], "float32")
    states = tf.constant(first), tf.constant(last)
    with tf.GradientTape() as tape:
        tape.watch(states)
        trend = TrendPooling(KINDS)._change(*states)
    expected = np.log(last / first, where=last / first > 0, out=np.zeros_like(first))
    np.testing.assert_allclose(to_numpy(trend), expected, rtol=1e-6)
    for gradient in tape.gradient(trend, states):
        assert np.abs(gradient).max() <= 1.01 / _EPSILON


@given(st.integers(0, 10_000), st.sampled_from(["log_ratio", "asinh", "signed_log", "difference"]), st.integers(1, 5))
@settings(max_examples=40)
def test_padding_and_batch_order_change_nothing(seed, measure, extra):
    outputs, mask, ids = random_case(seed)
    pooling = TrendPooling(KINDS, measure=measure)
    plain = to_numpy(pooling(outputs, mask, input_word_ids=ids))

    def pad(array, axis):
        width = [(0, extra if i == axis else 0) for i in range(array.ndim)]
        return np.pad(array, width, constant_values=7.0 if array.dtype == np.float32 else 0)

    padded = {
        "embedding_output": pad(outputs["embedding_output"], 1),
        "sequence_output": pad(outputs["sequence_output"], 1),
        "encoder_outputs": [pad(outputs["sequence_output"], 1)],
        "attention_received": pad(outputs["attention_received"], 3),
    }
    np.testing.assert_allclose(pooling(padded, pad(mask, 1), input_word_ids=pad(ids, 1)), plain, atol=1e-6)

    order = np.random.default_rng(seed).permutation(len(ids))
    permuted = {k: [v[0][order]] if isinstance(v, list) else v[order] for k, v in outputs.items()}
    np.testing.assert_allclose(pooling(permuted, mask[order], input_word_ids=ids[order]), plain[order], atol=1e-6)


@given(
    hnp.arrays(np.float32, (2, 16), elements=st.one_of(st.floats(-1e3, 1e3, width=32), st.sampled_from([0.0, 1e-38]))),
    st.sampled_from(["log_ratio", "asinh", "signed_log", "difference"]),
)
@settings(max_examples=80)
def test_value_and_gradient_are_finite_for_any_states(states, measure):
    first, last = tf.Variable(states[0]), tf.Variable(states[1])
    with tf.GradientTape() as tape:
        change = TrendPooling(KINDS, measure=measure)._change(first.value(), last.value())
    for gradient in tape.gradient(change, [first, last]):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() <= 1.01 / _EPSILON
    assert np.isfinite(change).all()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("reading", "heads"),
        ("measure", "log"),
        ("aggregation", "sum"),
        ("unit", "letter"),
        ("scale", 0.0),
        ("temperature", 0.0),
    ],
)
def test_wrong_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        TrendPooling(KINDS, **{argument: value})


@pytest.mark.parametrize("kinds", [[], [[0, 1]], [0.5], [8], [-1]])
def test_wrong_token_kinds(kinds):
    with pytest.raises(ValueError, match="`token_kinds`"):
        TrendPooling(kinds)


def test_what_it_needs_is_said_where_it_is_missing():
    outputs, mask, ids = random_case(0)
    with pytest.raises(ValueError, match="return_attention_received=True"):
        TrendPooling(KINDS)({k: v for k, v in outputs.items() if k != "attention_received"}, mask, input_word_ids=ids)
    with pytest.raises(ValueError, match="input_word_ids"):
        TrendPooling(KINDS)(outputs, mask)


def test_config_round_trip():
    pooling = TrendPooling(
        KINDS, reading="all", measure="asinh", aggregation="attention", unit="word", scale=0.3, name="mine"
    )
    clone = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(pooling))
    assert clone.get_config() == pooling.get_config()
    outputs, mask, ids = random_case(5)
    np.testing.assert_array_equal(clone(outputs, mask, input_word_ids=ids), pooling(outputs, mask, input_word_ids=ids))
