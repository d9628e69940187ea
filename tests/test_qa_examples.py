"""Answer selection and question types: the metrics, the baselines, what is split how, and the whole job."""

import itertools
import os
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.common import ROOT, V4, load_example, to_numpy

qa = load_example("qa_answer_selection")
question_type = load_example("question_type")
training = load_example("training")

QA_SAMPLE = ROOT / "examples" / "data" / "qa_sample.tsv"
QUESTION_SAMPLE = ROOT / "examples" / "data" / "question_sample.tsv"


def questions(*labels, text="q"):
    return [
        qa.Question(f"{text}{i}", [f"{text}{i} s{j}" for j in range(len(row))], np.array(row))
        for i, row in enumerate(labels)
    ]


class TestMetrics:
    def test_by_hand(self):
        labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.9, 0.8, 0.7, 0.6, 0.1])  # the answers rank 2, 4 and 5
        assert qa.average_precision(labels, scores) == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
        assert qa.reciprocal_rank(labels, scores) == 1 / 2

    def test_ties_are_pessimistic_and_order_does_not_matter(self):
        for order in itertools.permutations([(1, 0.5), (0, 0.5), (0, 0.5), (1, 0.1)]):
            labels, scores = np.array(order).T
            assert qa.reciprocal_rank(labels, scores) == pytest.approx(1 / 3)
            assert qa.average_precision(labels, scores) == pytest.approx((1 / 3 + 2 / 4) / 2)

    def test_scikit_learns_numbers_where_nothing_ties(self):
        metrics = pytest.importorskip("sklearn.metrics")
        generator = np.random.default_rng(0)
        for _ in range(50):
            labels = generator.permutation([1, 0, *generator.integers(0, 2, 10)])
            scores = generator.permutation(12) / 12.0
            assert qa.average_precision(labels, scores) == pytest.approx(
                metrics.average_precision_score(labels, scores)
            )
            first = (labels == 1) & (scores == scores[labels == 1].max())  # one positive: its precision is 1 / its rank
            expected = metrics.label_ranking_average_precision_score(first[None], scores[None])
            assert qa.reciprocal_rank(labels, scores) == pytest.approx(expected)

    def test_random_order_is_the_mean_over_all_orders(self):
        group = questions([1, 0, 0, 1, 0], [0, 1])
        (expected, one_of_two) = qa.expected_at_random(group)
        orders = [
            (qa.average_precision(group[0].labels, order), qa.reciprocal_rank(group[0].labels, order))
            for order in itertools.permutations(range(5))
        ]
        np.testing.assert_allclose(expected, np.mean(orders, axis=0))
        np.testing.assert_allclose(one_of_two, [0.75, 0.75])


class TestAnswerSelectionData:
    def test_only_questions_with_both_kinds_count(self, tmp_path):
        path = tmp_path / "data.tsv"
        path.write_text("label\tquestion\tanswer\n1\ta\tx\n0\ta\ty\n0\tb\tx\n1\tc\tx\n0\ta\tz\n")
        (only,) = qa.read_questions(path)
        assert (only.text, only.candidates, only.labels.tolist()) == ("a", ["x", "y", "z"], [1, 0, 0])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("1\ta\tx\n0\ta\n", "line 2: expected 3 columns between tabs, the first of them '0' or '1', got '0"),
            ("1\ta\tx\n1\ta\ty\n", "at least two of the labels"),
            ("1\ta\tx\n0\tb\ty\n", "questions with both kinds of candidates"),
        ],
    )
    def test_data_that_cannot_be_used(self, tmp_path, content, message):
        (tmp_path / "data.tsv").write_text(content)
        with pytest.raises(SystemExit, match=message):
            qa.read_data(tmp_path / "data.tsv", None)

    def test_no_question_is_on_both_sides(self):
        group = qa.read_questions(QA_SAMPLE)
        train, dev = qa.split_questions(group)
        assert len(train) + len(dev) == len(group)
        assert dev
        assert not {q.text for q in train} & {q.text for q in dev}

    def test_without_data_the_sample_is_used_and_that_is_said(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(training, "SHARED_DATA", tmp_path)
        train, dev = qa.read_data(None, None)
        assert len(train) > len(dev) > 0
        assert "using the small sample instead" in capsys.readouterr().out

    def test_groups_are_an_answer_and_others_of_the_same_question(self):
        group = questions([1, 0, 0, 1, 0, 0], [0, 1])
        drawn = qa.draw_groups(group, 3, np.random.default_rng(0))
        assert len(drawn) == 3
        label = {(q.text, s): y for q in group for s, y in zip(q.candidates, q.labels, strict=True)}
        for rows in drawn:
            assert [label[row] for row in rows] == [1, 0, 0, 0]
            assert len({question for question, _ in rows}) == 1
            assert len(set(rows)) == 4 or rows[0][0] == "q1"  # that question has one other only
        again = qa.draw_groups(group, 3, np.random.default_rng(1))
        assert sorted(again) != sorted(drawn)

    def test_the_loss_is_the_cross_entropy_of_finding_the_answer(self):
        scores = np.array([[1.0], [2.0], [0.5], [0.0], [3.0], [-1.0]], "float32")
        labels = np.array([[1.0], [0.0], [0.0]] * 2, "float32")
        groups = np.exp(scores.reshape(2, 3))
        loss = to_numpy(qa.answer_among(3)(labels, scores))
        np.testing.assert_allclose(loss, -np.log(groups[:, 0] / groups.sum(axis=1)), rtol=1e-6)


class TestBaselines:
    def test_bm25_ranks_shared_rare_words_first(self):
        pytest.importorskip("rank_bm25")
        sentences = ["The harbour was quiet .", "The Tamm flows quietly .", "The long river Tamm !"]
        sentences += [f"The {word} is the end ." for word in ("sea", "sky", "wind", "rain")]
        (scores,) = qa.bm25([qa.Question("How long was the river TAMM ?", sentences, np.eye(7, dtype=int)[2])])
        assert scores.shape == (7,)
        assert scores.argsort()[::-1][0] == 2  # three rare words
        assert set(scores.argsort()[::-1][1:3]) == {0, 1}  # one each

    def test_frozen_mean_is_the_cosine(self):
        group = qa.read_questions(QA_SAMPLE)[:2]
        got = qa.frozen_mean(group, str(V4), max_length=64)
        layer = qa.BertTrend(V4, pooling="mean", sequence_length=None, trainable=False)
        for question, scores in zip(group, got, strict=True):
            vectors = to_numpy(layer([question.text, *question.candidates]))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            np.testing.assert_allclose(scores, vectors[1:] @ vectors[0], atol=1e-5)


class TestQuestionTypes:
    def test_every_class_on_both_sides_and_no_question(self):
        texts, labels = question_type.read_questions(QUESTION_SAMPLE)
        train, test = question_type.split(texts, labels)
        assert len(train[0]) + len(test[0]) == len(texts)
        assert not {t.lower() for t in train[0]} & {t.lower() for t in test[0]}
        assert set(train[1]) == set(test[1]) == set(range(6))

    def test_duplicates_are_left_out_and_a_lonely_class_is_refused(self, tmp_path):
        path = tmp_path / "data.tsv"
        path.write_text("label\ttext\n" + "HUM\tWho ?\nLOC\tWhere ?\nHUM\twho ?\nHUM\tWho  else ?\n")
        texts, labels = question_type.read_questions(path)
        assert texts.tolist() == ["Who ?", "Where ?", "Who  else ?"]
        assert labels.tolist() == [3, 4, 3]
        with pytest.raises(SystemExit, match="every class on both sides"):
            question_type.split(texts, labels)


@pytest.fixture
def run(monkeypatch, capfd):
    """Run an example here, and without graphs but for what it exports: importing and tracing are most of the time."""

    def save_and_export(*arguments):
        tf.config.run_functions_eagerly(False)
        training_save_and_export(*arguments)

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
        module.main()
        return capfd.readouterr().out

    training_save_and_export = training.save_and_export
    monkeypatch.setattr(training, "save_and_export", save_and_export)
    tf.config.run_functions_eagerly(True)
    yield run
    tf.config.run_functions_eagerly(False)


TINY = ("--handle", V4, "--max-length", 64, "--epochs", 1)  # random weights: the scores say nothing


def test_answer_selection_end_to_end(tmp_path, run):
    pytest.importorskip("rank_bm25")
    printed = run(qa, "--data", QA_SAMPLE, *TINY, "--output", tmp_path / "qa")
    for line in ("BM25 ", "frozen mean", "trained", "QA MAP: ", "QA MRR: "):
        assert re.search(rf"^{line}.*[01]\.\d{{3}}", printed, flags=re.MULTILINE), line
    assert sorted(os.listdir(tmp_path / "qa")) == ["qa.keras", "saved_model"]

    # The ranking that a fresh process serves is that of the saved model.
    ranking = re.findall(r"^(-?\d+\.\d{3})  (.+)$", printed[printed.index("fresh process") :], flags=re.MULTILINE)
    scores, sentences = zip(*ranking, strict=True)
    assert list(scores) == sorted(scores, key=float, reverse=True)
    (question,) = (q for q in qa.read_questions(QA_SAMPLE) if sentences[0] in q.candidates)
    assert question.text in printed
    loaded = keras.models.load_model(tmp_path / "qa" / "qa.keras")
    expected = loaded([tf.constant([question.text] * len(sentences)), tf.constant(sentences)])
    np.testing.assert_allclose(to_numpy(expected)[:, 0], np.array(scores, float), atol=1e-3)


def test_question_type_end_to_end(tmp_path, run, monkeypatch):
    """Saving, exporting and serving is the same for all examples; here it counts what is served."""
    calls = []
    monkeypatch.setattr(training, "save_and_export", lambda *arguments: calls.append(arguments[1:]))
    monkeypatch.setattr(training, "serve_in_fresh_process", lambda *arguments: calls.append(arguments))
    arguments = ("--data", QUESTION_SAMPLE, *TINY, "--pooling", "mean", "--output", tmp_path / "kinds")
    printed = run(question_type, *arguments)
    assert "46 questions, 0 of them repeated" in printed
    assert re.search(r"^question type macro-F1: [01]\.\d{3}$", printed, flags=re.MULTILINE)
    labels = ",".join(question_type.CLASSES)
    served = (tmp_path / "kinds", "--labels", labels, *question_type.QUESTIONS)
    assert calls == [(tmp_path / "kinds", "question_type"), served]


def test_serving_names_the_classes(tmp_path, monkeypatch, capsys):
    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
        def serve(self, texts):
            return tf.where(texts[:, None] == "a", [[0.1, 0.7, 0.2]], [[0.6, 0.1, 0.3]])

    tf.saved_model.save(Model(), str(tmp_path / "model"))
    serving = load_example("serve_saved_model")
    monkeypatch.setattr(sys, "argv", ["serve", str(tmp_path / "model"), "--labels", "LOC,NUM,HUM", "a", "b"])
    serving.main()
    assert capsys.readouterr().out == "NUM   0.700  a\nLOC   0.600  b\n"
