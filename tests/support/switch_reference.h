#pragma once
#include <torch/torch.h>

#include <cmath>
#include <complex>
#include <map>
#include <string>
#include <vector>

#include "model/uvit.h"

namespace uvit::test {

/// A U-ViT with every switch of UViTOptions, spelled out in plain operations from the parameters alone; shares nothing with src/model but the names
/// of the parameters, patchify and the timestep embedding. Kinds softmax and differential.
class SwitchReference {
 public:
  SwitchReference(const UViTOptions& options, std::map<std::string, at::Tensor> parameters) : o_(options), p_(std::move(parameters)) {}

  at::Tensor forward(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y, at::Tensor* aligned) const {
    const std::int64_t batch = x.size(0), patches = (o_.height / o_.patch_size) * (o_.width / o_.patch_size);
    at::Tensor time = timestep_embedding(t, o_.adaln_zero ? 256 : o_.embed_dim).to(x.scalar_type());
    if (has("time_embed.0.weight")) time = linear("time_embed.2", silu(linear("time_embed.0", time)));
    const at::Tensor label = has("label_emb.weight") ? p_.at("label_emb.weight").index_select(0, y) : at::Tensor();
    condition_ = label.defined() ? time + label : time;

    std::vector<at::Tensor> tokens;
    if (!o_.adaln_zero && label.defined()) tokens.push_back(label.unsqueeze(1));
    if (!o_.adaln_zero) tokens.push_back(time.unsqueeze(1));
    tokens.push_back(at::conv2d(x, p_.at("patch_embed.proj.weight"), p_.at("patch_embed.proj.bias"), o_.patch_size).flatten(2).transpose(1, 2));
    at::Tensor h = at::cat(tokens, 1) + p_.at("pos_embed");
    if (has("register_tokens")) h = at::cat({p_.at("register_tokens").expand({batch, o_.register_tokens, o_.embed_dim}), h}, 1);

    std::vector<std::string> names;
    const std::int64_t side = o_.depth / 2;
    for (std::int64_t i = 0; i < side; ++i) names.push_back("in_blocks." + std::to_string(i));
    names.emplace_back("mid_block");
    for (std::int64_t i = 0; i < side; ++i) names.push_back("out_blocks." + std::to_string(i));
    std::vector<at::Tensor> outputs;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const auto partner = 2 * static_cast<std::size_t>(side) - i;  // of the long skip connection
      if (i > static_cast<std::size_t>(side) && o_.skip) h = linear(names[i] + ".skip_linear", at::cat({h, outputs[partner]}, 2));
      h = block(names[i], static_cast<std::int64_t>(i), h);
      outputs.push_back(h);
    }
    const auto patches_of = [&](const at::Tensor& all) { return all.narrow(1, all.size(1) - patches, patches); };
    if (o_.align_dim > 0) {
      at::Tensor z = patches_of(outputs[static_cast<std::size_t>(o_.align_block)]);
      z = linear("projector.4", silu(linear("projector.2", silu(linear("projector.0", z)))));
      *aligned = z;
    }
    h = norm("norm", h);
    if (o_.adaln_zero) {
      const std::vector<at::Tensor> m = modulation("adaLN_modulation", 2);
      h = h * (1 + m[1]) + m[0];
    }
    h = unpatchify(patches_of(linear("decoder_pred", h)), o_.channels, o_.height, o_.width, o_.patch_size);
    return o_.conv ? at::conv2d(h, p_.at("final_layer.weight"), p_.at("final_layer.bias"), 1, 1) : h;
  }

 private:
  bool has(const std::string& name) const { return p_.contains(name); }
  at::Tensor linear(const std::string& name, const at::Tensor& x) const {
    const at::Tensor product = at::matmul(x, p_.at(name + ".weight").t());
    return has(name + ".bias") ? product + p_.at(name + ".bias") : product;
  }
  static at::Tensor silu(const at::Tensor& x) { return x * at::sigmoid(x); }
  static at::Tensor root_mean_square(const at::Tensor& x, double eps) { return x / (x.square().mean(-1, true) + eps).sqrt(); }

  at::Tensor norm(const std::string& name, const at::Tensor& x) const {
    const at::Tensor mean = x.mean(-1, true), variance = (x - mean).square().mean(-1, true);
    at::Tensor y = o_.norm == "rms" ? root_mean_square(x, 1e-6) : (x - mean) / (variance + (o_.adaln_zero ? 1e-6 : 1e-5)).sqrt();
    if (has(name + ".weight")) y = y * p_.at(name + ".weight");
    return has(name + ".bias") ? y + p_.at(name + ".bias") : y;
  }

  std::vector<at::Tensor> modulation(const std::string& name, std::int64_t parts) const {
    std::vector<at::Tensor> result;
    const at::Tensor all = linear(name + ".1", silu(condition_));
    for (std::int64_t i = 0; i < parts; ++i) result.push_back(all.narrow(1, i * o_.embed_dim, o_.embed_dim).unsqueeze(1));
    return result;
  }

  at::Tensor block(const std::string& name, std::int64_t index, at::Tensor h) const {
    if (!o_.adaln_zero) {
      h = h + attention(name + ".attn", index, norm(name + ".norm1", h));
      return h + mlp(name + ".mlp", norm(name + ".norm2", h));
    }
    const std::vector<at::Tensor> m = modulation(name + ".adaLN_modulation", 6);
    h = h + m[2] * attention(name + ".attn", index, norm(name + ".norm1", h) * (1 + m[1]) + m[0]);
    return h + m[5] * mlp(name + ".mlp", norm(name + ".norm2", h) * (1 + m[4]) + m[3]);
  }

  at::Tensor mlp(const std::string& name, const at::Tensor& x) const {
    if (o_.mlp == "gelu") {
      const at::Tensor h = linear(name + ".fc1", x);
      return linear(name + ".fc2", 0.5 * h * (1 + at::erf(h / std::sqrt(2.0))));
    }
    const at::Tensor h = linear(name + ".w12", x);
    const std::int64_t width = h.size(2) / 2;
    return linear(name + ".w3", silu(h.narrow(2, 0, width)) * h.narrow(2, width, width));
  }

  /// Queries or keys of one head, [B, L, D]: normalised, then every patch's pairs turned as complex numbers.
  at::Tensor placed(const std::string& norm_name, at::Tensor x) const {
    if (o_.qk_norm) x = root_mean_square(x, 1e-6) * p_.at(norm_name + ".weight");
    if (!o_.rope) return x;
    const std::int64_t columns = o_.width / o_.patch_size, patches = columns * (o_.height / o_.patch_size);
    const std::int64_t d = x.size(2), first = x.size(1) - patches;
    std::vector<at::Tensor> tokens;
    for (std::int64_t i = 0; i < x.size(1); ++i) {
      at::Tensor token = x.select(1, i);
      std::vector<at::Tensor> values;
      for (std::int64_t pair = 0; pair < d / 2 && i >= first; ++pair) {
        const std::int64_t place = i - first, along = pair < d / 4 ? place % columns : place / columns;
        const double angle = static_cast<double>(along) * std::pow(100.0, -static_cast<double>(pair % (d / 4)) / (static_cast<double>(d) / 4));
        const std::complex<double> turn = std::polar(1.0, angle);
        const at::Tensor a = token.select(1, 2 * pair), b = token.select(1, 2 * pair + 1);
        values.push_back(a * turn.real() - b * turn.imag());
        values.push_back(a * turn.imag() + b * turn.real());
      }
      tokens.push_back(values.empty() ? token : at::stack(values, 1));
    }
    return at::stack(tokens, 1);
  }

  at::Tensor attention(const std::string& name, std::int64_t index, const at::Tensor& x) const {
    const std::int64_t dim = o_.embed_dim, width = dim / o_.num_heads;
    const at::Tensor qkv = linear(name + ".qkv", x);
    const auto part = [&](std::int64_t s, std::int64_t head, std::int64_t heads) { return qkv.narrow(2, s * dim + head * width, heads * width); };
    const auto weights = [&](std::int64_t head) {
      const at::Tensor q = placed(name + ".q_norm", part(0, head, 1)), k = placed(name + ".k_norm", part(1, head, 1));
      return at::softmax(at::matmul(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(width)), -1);
    };
    std::vector<at::Tensor> outputs;
    if (o_.plan.kinds[static_cast<std::size_t>(index)] == "softmax") {
      for (std::int64_t head = 0; head < o_.num_heads; ++head) outputs.push_back(at::matmul(weights(head), part(2, head, 1)));
    } else {  // differential
      const double init = 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(index));
      const auto vector = [&](const char* which) { return p_.at(name + ".lambda_" + which); };
      const at::Tensor lambda = at::exp(at::dot(vector("q1"), vector("k1"))) - at::exp(at::dot(vector("q2"), vector("k2"))) + init;
      for (std::int64_t pair = 0; pair < o_.num_heads / 2; ++pair) {
        const at::Tensor out = at::matmul(weights(2 * pair) - lambda * weights(2 * pair + 1), part(2, 2 * pair, 2));
        outputs.push_back(root_mean_square(out, 1e-5) * p_.at(name + ".subln.weight") * (1 - init));
      }
    }
    return linear(name + ".proj", at::cat(outputs, 2));
  }

  UViTOptions o_;
  std::map<std::string, at::Tensor> p_;
  mutable at::Tensor condition_;
};

}  // namespace uvit::test
