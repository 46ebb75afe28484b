//! One suite, stamped on every backend whose feature is on: `flex::info_nce::…`, `wgpu::…`.

#![allow(deprecated)] // `Device::ndarray`: Burn retires it, this crate keeps it tested.

mod oracle;
mod suite;

use burn::tensor::{DType, Device};
use suite::Backend;

/// Stamps the listed tests on one backend. A test that is not listed is dead code, which lints deny.
macro_rules! stamp {
    ($backend:ident, $feature:literal, $device:expr, $dtypes:expr;
     $($module:ident: $($test:ident),+;)+) => {
        #[cfg(feature = $feature)]
        mod $backend {
            use super::*;
            $(mod $module {
                use super::*;
                $(#[test]
                fn $test() {
                    suite::$module::$test(&Backend::new($device, &$dtypes));
                })+
            })+
        }
    };
}

/// Every backend, with the float dtypes that it must support besides f32.
macro_rules! stamp_on_every_backend {
    ($($tests:tt)+) => {
        stamp!(flex, "flex", Device::flex(), [DType::F64, DType::F16, DType::BF16]; $($tests)+);
        stamp!(ndarray, "ndarray", Device::ndarray(), [DType::F64]; $($tests)+);
        stamp!(wgpu, "wgpu", Device::wgpu(Default::default()), []; $($tests)+);
        stamp!(vulkan, "vulkan", Device::vulkan(Default::default()), []; $($tests)+);
        stamp!(metal, "metal", Device::metal(Default::default()), []; $($tests)+);
        stamp!(cuda, "cuda", Device::cuda(0), [DType::F64, DType::F16, DType::BF16]; $($tests)+);
        stamp!(rocm, "rocm", Device::rocm(0), [DType::F64, DType::F16, DType::BF16]; $($tests)+);
    };
}

stamp_on_every_backend! {
    similarity:
        rows_have_norm_one_whatever_their_size,
        normalisation_matches_the_oracle_in_value_and_gradient,
        half_precision_normalises_zero_and_small_rows,
        cosines_match_the_oracle,
        cosine_refuses_rows_of_different_width;
    retrieval:
        ranks_match_naive_loops,
        equal_embeddings_find_nothing,
        a_nan_row_never_scores,
        precision_and_histogram_by_hand;
    info_nce:
        value_and_gradients_match_the_oracle,
        f64_matches_the_oracle_to_1e_10,
        half_precision_is_as_good_as_its_inputs,
        extra_negatives_match_the_oracle,
        matches_open_clip,
        equal_embeddings_give_ln_n,
        a_single_pair_costs_nothing,
        a_single_pair_against_extra_negatives,
        no_rows_of_extra_negatives_are_none,
        huge_and_tiny_norms_change_nothing,
        zero_rows_are_at_similarity_zero_with_finite_gradients,
        a_temperature_of_a_thousandth,
        logits_of_ten_thousand,
        duplicates_have_a_finite_loss,
        nan_in_gives_nan_out,
        strided_tensors_match_contiguous_ones,
        an_untracked_side_changes_nothing_for_the_other,
        works_under_gradient_checkpointing,
        permuting_the_batch_permutes_the_losses,
        swapping_the_modalities_swaps_the_directions,
        a_constant_on_every_logit_changes_nothing,
        scaling_an_embedding_changes_nothing,
        refuses_an_empty_batch,
        refuses_different_numbers_of_rows,
        refuses_broadcasting,
        refuses_different_dtypes,
        refuses_autodiff_with_plain,
        refuses_an_objective_without_autodiff,
        refuses_negatives_of_another_width;
    negatives:
        a_queue_keeps_the_newest_whatever_the_batches,
        a_queue_goes_on_from_its_record,
        a_queue_holds_constants_where_it_was_built,
        a_queue_refuses_what_does_not_fit,
        frequencies_follow_the_softmax,
        blocks_of_rows_change_no_draw,
        without_any_difference_draws_are_uniform,
        positives_are_never_drawn,
        where_all_are_positives_none_is_drawn,
        a_momentum_copy_is_the_moving_average,
        a_momentum_copy_goes_on_from_its_record,
        a_momentum_copy_is_not_trained,
        a_model_with_copy_and_queue_trains_and_goes_on_from_its_record;
    pretraining:
        matching_has_the_loss_and_gradient_of_its_logits,
        pairs_that_do_not_exist_cost_nothing,
        masked_words_have_the_loss_and_gradient_of_their_logits,
        texts_are_masked_alike_on_every_device;
    momentum_loop:
        the_queue_is_compared_with_features_of_the_momentum_copy,
        every_source_of_negatives_increases_the_loss,
        features_without_autodiff_are_constants_beside_tracked_ones;
    synthesis:
        one_cluster_matches_the_oracle,
        clusters_that_are_apart_match_the_oracle,
        a_cluster_remembers_what_is_nearest_to_its_center,
        of_a_cluster_of_its_own_another_stands_in,
        gradients_flow_where_asked_for,
        hard_negatives_are_finite_and_repeatable;
    synthesis_matches:
        samples_with_the_anchors_id_are_excluded,
        a_cluster_of_matches_alone_is_replaced_by_another,
        gradients_of_several_clusters_match_finite_differences,
        hard_negatives_are_nearer_than_their_clusters;
    pointwise:
        matches_open_clip_lightly_and_pytorch_metric_learning,
        values_and_gradients_match_the_oracle,
        f64_matches_the_oracle_to_1e_9,
        half_precision_is_as_good_as_its_inputs,
        the_mean_over_pairs_is_the_loss,
        evaluations_agree,
        the_scale_and_the_bias_of_sig_lip_have_their_gradients,
        uniformity_within_a_modality_matches_the_oracle,
        uniformity_takes_unequal_numbers,
        uniformity_with_a_large_t_matches_the_oracle,
        a_single_pair_matches_the_oracle,
        zero_rows_have_their_cosines_and_finite_gradients,
        huge_and_tiny_norms_change_nothing,
        norms_below_epsilon_are_divided_by_it,
        duplicates_match_the_oracle,
        nan_in_gives_nan_out,
        an_untracked_side_changes_nothing_for_the_other,
        works_under_gradient_checkpointing,
        refuses_different_numbers_of_rows,
        sig_lip_refuses_embeddings_of_another_autodiff,
        con_vse_plus_plus_is_vse_plus_plus_over_the_temperature,
        of_two_pairs_the_only_negative_is_the_hardest,
        permuting_the_batch_changes_nothing,
        swapping_the_modalities_changes_nothing,
        scaling_an_embedding_changes_nothing,
        reco_is_orthogonality_where_no_cosine_is_negative,
        barlow_twins_is_orthogonality_of_features;
    contrastive:
        every_objective_matches_the_oracle,
        combinations_match_the_oracle,
        f64_matches_the_oracle_to_1e_9,
        half_precision_is_as_good_as_its_inputs,
        matches_lightly_and_pytorch_metric_learning,
        each_pair_and_each_direction_match_the_oracle,
        evaluations_agree,
        works_under_gradient_checkpointing,
        each_objective_is_its_criterion,
        equal_similarities_make_srcl_con_vse,
        swapping_the_modalities_swaps_the_directions,
        permuting_the_batch_permutes_the_losses,
        the_decoupled_loss_is_info_nce_without_the_positive,
        settings_that_change_nothing,
        extra_negatives_are_weighted_with_those_of_the_batch,
        whoever_agrees_with_its_teacher_stays,
        weights_of_ones_own,
        a_single_pair_is_defined,
        a_temperature_of_a_thousandth,
        weights_of_a_thousandth_are_finite,
        zero_rows_and_duplicates_are_finite,
        nan_in_gives_nan_out,
        misuse_panics_with_what_is_wrong;
    image_text_contrastive:
        value_and_gradients_match_the_oracle,
        samples_of_one_id_share_the_target,
        f64_matches_the_oracle_to_1e_8,
        the_mean_over_pairs_is_the_loss,
        evaluations_agree,
        without_soft_targets_and_with_its_own_features_it_is_info_nce,
        whoever_agrees_with_its_momentum_stays,
        an_empty_queue_is_none,
        a_single_pair_costs_nothing,
        a_temperature_of_a_thousandth,
        nan_in_gives_nan_out,
        misuse_panics_with_what_is_wrong;
    weighting:
        weights_match_the_oracle_in_any_block,
        the_two_conditions_hold,
        read_outs_match_naive_loops,
        a_single_pair_and_nan_have_defined_read_outs;
    weights_of_queue:
        weights_with_ids_and_a_queue_match_the_oracle,
        the_share_below_a_threshold_is_counted_in_both_directions,
        the_weights_are_those_of_the_loss;
    pairwise:
        every_family_matches_the_oracle,
        one_pair_one_row_and_one_column_match_the_oracle,
        half_precision_is_widened,
        hard_numbers_are_as_good_as_dense_ones,
        strided_tensors_match_contiguous_ones,
        an_untracked_side_changes_nothing_for_the_other,
        works_under_gradient_checkpointing,
        results_used_twice_have_twice_the_gradient,
        reducing_to_a_scalar_is_the_function_of_the_results,
        a_teacher_is_a_constant,
        labels_are_compared_exactly,
        ties_go_to_the_lowest_index,
        over_nothing_the_value_is_minus_infinity_and_the_gradient_zero,
        nan_spreads_to_exactly_what_reads_it,
        nan_in_a_bound_number_is_nan_where_it_is_read,
        log_sum_exps_of_groups_are_joined,
        permuting_rows_permutes_results,
        swapping_the_sides_swaps_rows_and_columns,
        misuse_panics_with_what_is_wrong;
}

/// The backends with kernels of their own for the CPU, on which larger shapes are tested.
macro_rules! stamp_on_cpu_backends {
    ($($tests:tt)+) => {
        #[cfg(feature = "flex")]
        mod flex_kernels {
            use super::*;
            stamp!(flex, "flex", Device::flex(), [DType::F64, DType::F16, DType::BF16]; $($tests)+);
        }
        #[cfg(feature = "ndarray")]
        mod ndarray_kernels {
            use super::*;
            stamp!(ndarray, "ndarray", Device::ndarray(), [DType::F64]; $($tests)+);
        }
    };
}

stamp_on_cpu_backends! {
    contrastive: blocks_change_nothing;
    pairwise:
        every_family_matches_the_oracle_in_f64,
        blocks_and_what_is_kept_change_nothing,
        sizes_around_a_tile,
        ties_in_different_tiles_go_to_the_lowest_index,
        within_is_a_set_with_itself,
        a_pair_that_is_left_out_changes_nothing,
        the_scale_has_the_slope_of_the_results;
}

/// The backends whose passes are launched kernels.
#[cfg(feature = "_cube")]
macro_rules! stamp_on_devices {
    ($($tests:tt)+) => {
        mod kernels {
            use super::*;
            stamp!(wgpu, "wgpu", Device::wgpu(Default::default()), []; $($tests)+);
            stamp!(vulkan, "vulkan", Device::vulkan(Default::default()), []; $($tests)+);
            stamp!(metal, "metal", Device::metal(Default::default()), []; $($tests)+);
            stamp!(cuda, "cuda", Device::cuda(0), [DType::F64, DType::F16, DType::BF16]; $($tests)+);
            stamp!(rocm, "rocm", Device::rocm(0), [DType::F64, DType::F16, DType::BF16]; $($tests)+);
        }
    };
}

#[cfg(feature = "_cube")]
stamp_on_devices! {
    device:
        blocks_match_the_dense_reference,
        sizes_around_the_tile_of_a_cube,
        two_runs_give_the_same_bits,
        rounded_products_are_as_good_as_their_type,
        what_is_declared_is_what_comes_back;
}
