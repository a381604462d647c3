#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>

#include "attention/eager.h"

namespace uvit {

/// The operator uvit::attention of the torch dispatcher; Python has it as torch.ops.uvit.attention once libuvit_ops.so is loaded.
///   s = scale * q k^T      w: the kind's weights over the keys      o = w v      (formulas and sources: the table in kinds.cpp)
/// @param q  [B, H, L, D]; @param k [B, H, Lk, D]; @param v [B, H, Lk, Dv]; one device, one floating dtype. Strided views are read in place where the
///           last stride is 1. Under autocast they are brought to its dtype.
/// @param kind   softmax, cog, sda, sda_weighted, dipole, diff, centered, softpick, softmax1 or sigmoid
/// @param scale  multiplies the scores; empty: 1 / sqrt(D)
/// @param causal key j is visible to query i iff j <= i + Lk - L; a row with no visible key gives 0 and zero gradients
/// @param extras exactly the tensors that the kind needs besides; w_plus and w_minus in any floating dtype
/// @return [B, H, L, Dv], q's dtype, a view of [B, L, H, Dv] storage
/// @throws c10::Error naming the argument that is not as above.
/// The fused kernels (plain_path_reason) keep O(B H L) floats for backward and cannot be differentiated twice, which is a clear error. Else plain
/// ATen operations run, with L x Lk weights and derivatives of any order.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind = "softmax",
                     std::optional<double> scale = std::nullopt, bool causal = false, const AttentionExtras& extras = {});

/// uvit::attention_packed: the same on what one linear layer gives, without copies: backward writes one gradient of qkv's shape.
/// @param qkv  [B, L, S, H, D] with S = 3 (q, k, v), or 4 for dipole (q, k, v, v2). Kind diff has no packed form.
/// @return [B, L, H*D]
at::Tensor attention_packed(const at::Tensor& qkv, std::string_view kind = "softmax", std::optional<double> scale = std::nullopt, bool causal = false,
                            const at::Tensor& w_plus = {}, const at::Tensor& w_minus = {});

/// Why operands like these run plain ATen operations, in a few words; "" where the fused kernels take them: float32 or bfloat16 on the CPU, these or
/// float16 on a GPU (in a build with CUDA), widths that are multiples of 8 up to 128.
std::string plain_path_reason(c10::DeviceType device, at::ScalarType dtype, std::int64_t head_dim, std::int64_t value_dim);

/// Defines the operators in torch's dispatcher unless they are there. The two functions above and loading libuvit_ops.so do it.
void register_operators();

}  // namespace uvit
