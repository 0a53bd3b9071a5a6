"""Names of kernels as they have been seen, and the cores that they tell of."""

from __future__ import annotations

import pytest

from detrx.inspect.tactics import Cores, cores_of

XMMA = "sm{}_xmma_fprop_implicit_gemm_{}_nhwckrsc_nhwc_tilesize128x128x32_stage1_warpsize2x2x1_g1_{}"


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        (XMMA.format(72, "indexed_i8i8_i8i32_f32", "tensor8x8x16"), "IMMA 8x8x16"),
        (XMMA.format(70, "f16f16_f16f16_f16", "tensor8x8x4_t1r3s3"), "HMMA 8x8x4"),
        (XMMA.format(75, "f16f16_f16f32_f32", "tensor16x8x8"), "HMMA 16x8x8"),
        (XMMA.format(80, "i8i8_i8i32_f32", "tensor16x8x32"), "IMMA 16x8x32"),
        (XMMA.format(80, "tf32f32_tf32f32_f32", "tensor16x8x8"), "HMMA 16x8x8 tf32"),
        (XMMA.format(89, "e4m3e4m3_e4m3f32_f32", "tensor16x8x32"), "QMMA 16x8x32"),
        (
            "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_kernel",
            "HMMA",
        ),
        ("trt_volta_h884cudnn_256x64_ldg8_relu_exp_small_nhwc_tn_v1", "HMMA 884"),
        ("trt_volta_s884cudnn_128x128_ldg8_relu_exp_small_nhwc_tn_v1", "HMMA 884"),
        ("turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_nn", "HMMA 1688"),
        ("ampere_int8_i16832gemm_int8_128x64", "IMMA 16832"),
        ("cutlass_80_wmma_tensorop_s161616gemm_f16_32x32_128x2_tn_align8", "HMMA 161616"),
        ("_gemm_mha_v2_0x5f1e2", "fused attention"),
        ("fused_multihead_attention_v2_int8_128_64_kernel_sm72", "fused attention"),
        ("void detrx::cuda::(anonymous namespace)::tensor_kernel<32>(detrx::AttentionProblem)", "HMMA"),
    ],
)
def test_tensor_cores(name: str, instruction: str) -> None:
    assert cores_of(name) == Cores("tensor", instruction)


@pytest.mark.parametrize(
    "name",
    [
        "volta_int8x4_icudnn_int8x4_128x64_relu_small_nn_v1",
        "volta_scudnn_128x64_sliced1x2_ldg4_relu_exp_small_nhwc_tn_v1",
        XMMA.format(80, "f32f32_f32f32_f32", "ffma_t1r3s3"),
        "sm50_xmma_cublas_gemvx_f16f16_f32",
        "ampere_sgemm_128x64_nn",
        "__myl_AddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd_0xf25fcdd43c36ff9f",
        "generatedNativePointwise",
        "void cuInt8::nchwTonhwc<float, 32>(float const*)",
        "void detrx::cuda::(anonymous namespace)::layer_norm_kernel<float>(detrx::LayerNormProblem)",
    ],
)
def test_cuda_cores(name: str) -> None:
    assert cores_of(name) == Cores("cuda", "")


@pytest.mark.parametrize(
    "name", ["", "sm80_xmma_fprop_implicit_gemm_unheard_of", "__myl_FcMulAdd_0xab", "0x3e8"]
)
def test_names_that_say_neither(name: str) -> None:
    """xmma alone is said of kernels on CUDA cores too; what Myelin fuses with a product may use either."""
    assert cores_of(name).kind == "unknown"
