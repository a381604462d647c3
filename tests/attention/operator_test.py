"""The attention operator as Python sees it: operator_test.py LIBUVIT_OPS"""
import sys
import unittest

import torch

attention = attention_packed = None  # the loaded operators
KINDS = ["softmax", "cog", "sda", "sda_weighted", "dipole", "diff", "centered", "softpick", "softmax1", "sigmoid"]


def operands(kind, dtype=torch.float32, B=2, H=3, L=9, Lk=11, D=16, Dv=24, seed=0):
    """Leaves (q, k, v) and the extras that the kind needs."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    qkv = (leaf(B, H, L, D), leaf(B, H, Lk, D), leaf(B, H, Lk, Dv))
    extras = {}
    if kind == "diff":
        extras = {"q2": leaf(B, H, L, D), "k2": leaf(B, H, Lk, D), "w_minus": leaf(H)}
    if kind == "dipole":
        extras = {"v2": leaf(B, H, Lk, Dv), "w_plus": leaf(H), "w_minus": leaf(H)}
    if kind == "sda_weighted":
        extras = {"w_plus": leaf(H), "w_minus": leaf(H)}
    return qkv, extras


def packed_operands(kind, dtype=torch.float32):
    _, extras = operands(kind, dtype)
    extras.pop("v2", None)
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(2, 9, 4 if kind == "dipole" else 3, 3, 16, generator=generator).to(dtype).requires_grad_()
    return qkv, extras


def gradients(out, leaves):
    return torch.autograd.grad(out.square().sum(), leaves)


class OperatorTest(unittest.TestCase):
    def test_softmax_is_torchs_own(self):
        (q, k, v), _ = operands("softmax")
        out, reference = attention(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v)
        torch.testing.assert_close(out, reference, rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(gradients(out, (q, k, v)), gradients(reference, (q, k, v))):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_cog_is_its_formula(self):
        (q, k, v), _ = operands("cog")
        scores = q @ k.mT * 0.2
        reference = (scores.sign() * scores.abs().softmax(-1)) @ v
        out = attention(q, k, v, kind="cog", scale=0.2)
        torch.testing.assert_close(out, reference, rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(gradients(out, (q, k, v)), gradients(reference, (q, k, v))):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_opcheck(self):
        for kind in KINDS:
            with self.subTest(kind=kind):
                qkv, extras = operands(kind)
                torch.library.opcheck(attention, qkv, {"kind": kind, **extras})
        for kind, dtype in [("cog", torch.float64), ("softmax", torch.bfloat16)]:
            with self.subTest(kind=kind, dtype=dtype):
                qkv, extras = operands(kind, dtype)
                torch.library.opcheck(attention, qkv, {"kind": kind, "causal": True, **extras})

    def test_opcheck_packed(self):
        for kind in ["softmax", "cog", "sda_weighted", "dipole"]:
            with self.subTest(kind=kind):
                qkv, extras = packed_operands(kind)
                torch.library.opcheck(attention_packed, (qkv,), {"kind": kind, **extras})

    def test_opcheck_of_what_they_rest_on(self):
        (q, k, v), _ = operands("cog")
        with torch.no_grad():
            out, stats = torch.ops.uvit._attention_forward([q, k, v], "cog", 0.25, False)
        torch.library.opcheck(torch.ops.uvit._attention_forward.default, ([q, k, v], "cog", 0.25, False))
        # It has no derivatives, so the checks of those do not apply.
        inputs = [x.detach() for x in (q, k, v)]
        torch.library.opcheck(torch.ops.uvit._attention_backward.default, (out, inputs, out, stats, "cog", 0.25, False),
                              test_utils=("test_schema", "test_faketensor"))

    def test_gradcheck(self):
        for kind in KINDS:
            for causal in (False, True):
                with self.subTest(kind=kind, causal=causal):
                    qkv, extras = operands(kind, torch.float64, B=1, H=2, L=3, Lk=4, D=8, Dv=8, seed=3)
                    names = list(extras)

                    def call(q, k, v, *rest):
                        return attention(q, k, v, kind=kind, causal=causal, **dict(zip(names, rest)))

                    self.assertTrue(torch.autograd.gradcheck(call, (*qkv, *extras.values())))
        qkv, extras = packed_operands("dipole", torch.float64)
        qkv = qkv.detach()[:1, :3].requires_grad_()
        self.assertTrue(torch.autograd.gradcheck(lambda x, a, b: attention_packed(x, kind="dipole", w_plus=a, w_minus=b),
                                                 (qkv, extras["w_plus"], extras["w_minus"])))

    def test_gradients_of_second_order(self):
        qkv, _ = operands("sda", torch.float64, B=1, H=1, L=2, Lk=3, D=8, Dv=8)
        self.assertTrue(torch.autograd.gradgradcheck(lambda q, k, v: attention(q, k, v, kind="sda"), qkv))
        (q, k, v), _ = operands("sda")
        gradient, = torch.autograd.grad(attention(q, k, v, kind="sda").sum(), q, create_graph=True)
        with self.assertRaisesRegex(RuntimeError, "cannot be differentiated twice"):
            gradient.sum().backward()

    def check_compiled(self, function, leaves, **options):
        out, expected = torch.compile(function, fullgraph=True, **options)(*leaves), function(*leaves)
        self.assertEqual(out.stride(), expected.stride())
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
        for ours, eager in zip(gradients(out, leaves), gradients(expected, leaves)):
            torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)

    def test_compile(self):
        for kind in KINDS:
            with self.subTest(kind=kind):
                torch._dynamo.reset()
                qkv, extras = operands(kind)
                names = list(extras)

                def layer(q, k, v, *rest):
                    return attention(q * 2, k, v, kind=kind, **dict(zip(names, rest))).transpose(1, 2).sin()

                self.check_compiled(layer, (*qkv, *extras.values()), backend="aot_eager")

    def test_compile_with_code_generation_and_changing_lengths(self):
        torch._dynamo.reset()
        compiled = torch.compile(lambda x: attention_packed(x, kind="cog").relu(), fullgraph=True, dynamic=True)
        for length in (9, 13, 20):
            qkv = torch.randn(2, length, 3, 3, 16, generator=torch.Generator().manual_seed(length), requires_grad=True)
            out, expected = compiled(qkv), attention_packed(qkv, kind="cog").relu()
            torch.testing.assert_close(out, expected)
            torch.testing.assert_close(gradients(out, [qkv]), gradients(expected, [qkv]))

    def test_autocast(self):
        (q, k, v), _ = operands("cog")
        linear = torch.nn.Linear(16, 16)
        with torch.autocast("cpu", torch.bfloat16):
            out = attention(linear(q), k, v, kind="cog")
        self.assertEqual(out.dtype, torch.bfloat16)
        out.float().sum().backward()
        self.assertEqual(k.grad.dtype, torch.float32)
        self.assertEqual(linear.weight.grad.dtype, torch.float32)

    def test_error_messages(self):
        (q, k, v), _ = operands("cog")
        w = torch.ones(3)
        for message, call in [
            ("did you mean 'softmax'", lambda: attention(q, k, v, kind="sofmax")),
            (r"k must be \[B, H, Lk, D\]", lambda: attention(q, k[..., :8], v)),
            ("v is double and q is float|v is Double and q is Float", lambda: attention(q, k, v.double())),
            ("'diff' needs q2", lambda: attention(q, k, v, kind="diff")),
            ("'cog' takes no w_plus", lambda: attention(q, k, v, kind="cog", w_plus=w)),
            (r"w_minus must be \[H\]", lambda: attention(q, k, v, kind="sda_weighted", w_plus=w, w_minus=w[:2])),
            (r"qkv must be \[B, L, S, H, D\]", lambda: attention_packed(q)),
        ]:
            with self.subTest(message=message), self.assertRaisesRegex(RuntimeError, message):
                call()

    def test_result_does_not_depend_on_the_number_of_threads(self):
        qkv = torch.randn(1, 257, 3, 4, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
        before, results = torch.get_num_threads(), []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = attention_packed(qkv, kind="cog")
            results.append((out, *gradients(out, [qkv])))
        torch.set_num_threads(before)
        for result in results[1:]:
            self.assertTrue(all(torch.equal(a, b) for a, b in zip(results[0], result)))


if __name__ == "__main__":
    torch.ops.load_library(sys.argv.pop(1))
    attention = torch.ops.uvit.attention.default
    attention_packed = torch.ops.uvit.attention_packed.default
    unittest.main(verbosity=2)
