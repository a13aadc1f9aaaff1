/* Distributions of durations; see weir/dist.h. */
#include "base/draw.h"

#include "base/text.h"
#include "weir/guard.h"

#include <math.h>

static const double most_seconds = 100.0 * 366 * 24 * 3600;

/* ---- checks ---------------------------------------------------------------------------------------------------- */

static int bad(char *why, const char *knob, const char *what, double value, const char *limit)
{
    if (why != NULL)
        wr_text_format(why, WEIR_WHY_MAX, "%s: %s is %g; it must be %s", knob, what, value, limit);
    return WEIR_EINVAL;
}

static bool is_duration(double seconds)
{
    return seconds >= 0 && seconds <= most_seconds; /* false for NaN */
}

static int check_histogram(const weir_dist *dist, const char *knob, char *why)
{
    if (dist->count < 1 || dist->count > WEIR_DIST_BINS)
        return bad(why, knob, "the number of bins", (double)dist->count, "1 to 4096");
    double sum = 0;
    for (size_t i = 0; i < dist->count; i++) {
        if (!(dist->weights[i] >= 0 && dist->weights[i] <= 1e15))
            return bad(why, knob, "a weight", dist->weights[i], "0 or more");
        if (!is_duration(dist->edges[i]) || !(dist->edges[i + 1] >= dist->edges[i]))
            return bad(why, knob, "an edge", dist->edges[i], "0 or more seconds, and not above the next");
        sum += dist->weights[i];
    }
    if (!is_duration(dist->edges[dist->count]))
        return bad(why, knob, "the last edge", dist->edges[dist->count], "a duration in seconds");
    return sum > 0 ? WEIR_OK : bad(why, knob, "the sum of the weights", sum, "above 0");
}

int weir_dist_check(const weir_dist *dist, const char *knob, char *why)
{
    if ((unsigned)dist->kind > WEIR_DIST_HISTOGRAM)
        return bad(why, knob, "the kind", (double)dist->kind, "one of the known ones");
    if (dist->kind == WEIR_DIST_HISTOGRAM) return check_histogram(dist, knob, why);
    if (!is_duration(dist->a)) return bad(why, knob, "the duration", dist->a, "0 or more seconds");
    if (dist->kind == WEIR_DIST_UNIFORM && !(is_duration(dist->b) && dist->b >= dist->a))
        return bad(why, knob, "the longest", dist->b, "at least the shortest");
    if (dist->kind == WEIR_DIST_NORMAL && !is_duration(dist->b))
        return bad(why, knob, "the deviation", dist->b, "0 or more seconds");
    if (dist->kind == WEIR_DIST_LOGNORMAL && !(dist->b >= 0 && dist->b <= 20))
        return bad(why, knob, "the deviation of the logarithm", dist->b, "0 to 20");
    if (dist->kind == WEIR_DIST_PARETO && !(dist->b > 0 && dist->b <= 1000))
        return bad(why, knob, "the shape", dist->b, "above 0 and at most 1000");
    if (dist->kind == WEIR_DIST_PARETO && !(dist->c == 0 || (is_duration(dist->c) && dist->c >= dist->a)))
        return bad(why, knob, "the cut", dist->c, "0, or at least the shortest");
    return WEIR_OK;
}

/* ---- means ------------------------------------------------------------------------------------------------------- */

static double pareto_cut(const weir_dist *dist)
{
    return dist->c == 0 ? dist->a * 1000 : dist->c;
}

/* All that lies beyond the cut counts as the cut. */
static double pareto_mean(const weir_dist *dist)
{
    double least = dist->a, shape = dist->b, cut = pareto_cut(dist);
    if (least == 0) return 0;
    if (fabs(shape - 1) < 1e-9) return least * (1 + log(cut / least));
    return least * (shape - pow(least / cut, shape - 1)) / (shape - 1);
}

static double histogram_mean(const weir_dist *dist)
{
    double sum = 0, weight = 0;
    for (size_t i = 0; i < dist->count; i++) {
        sum += dist->weights[i] * (dist->edges[i] + dist->edges[i + 1]) / 2;
        weight += dist->weights[i];
    }
    return sum / weight;
}

double weir_dist_mean(const weir_dist *dist)
{
    switch (dist->kind) {
    case WEIR_DIST_UNIFORM:
        return (dist->a + dist->b) / 2;
    case WEIR_DIST_LOGNORMAL:
        return dist->a * exp(dist->b * dist->b / 2);
    case WEIR_DIST_PARETO:
        return pareto_mean(dist);
    case WEIR_DIST_HISTOGRAM:
        return histogram_mean(dist);
    default:
        return dist->a;
    }
}

/* ---- draws ------------------------------------------------------------------------------------------------------- */

/* Marsaglia's polar method; the second value is thrown away, so that a generator has no state beside its own. */
double wr_dist_normal(struct wr_rng *rng)
{
    double x, y, s;
    do {
        x = 2 * wr_rng_unit(rng) - 1;
        y = 2 * wr_rng_unit(rng) - 1;
        s = x * x + y * y;
    } while (s >= 1 || s == 0);
    return x * sqrt(-2 * log(s) / s);
}

static double draw_pareto(const weir_dist *dist, struct wr_rng *rng)
{
    double value = dist->a / pow(1 - wr_rng_unit(rng), 1 / dist->b), cut = pareto_cut(dist);
    return value < cut ? value : cut;
}

static double draw_histogram(const weir_dist *dist, struct wr_rng *rng)
{
    double sum = 0;
    for (size_t i = 0; i < dist->count; i++) sum += dist->weights[i];
    double left = wr_rng_unit(rng) * sum;
    size_t bin = 0;
    while (bin + 1 < dist->count && left >= dist->weights[bin]) left -= dist->weights[bin++];
    return dist->edges[bin] + wr_rng_unit(rng) * (dist->edges[bin + 1] - dist->edges[bin]);
}

static double draw_seconds(const weir_dist *dist, struct wr_rng *rng)
{
    switch (dist->kind) {
    case WEIR_DIST_UNIFORM:
        return dist->a + wr_rng_unit(rng) * (dist->b - dist->a);
    case WEIR_DIST_EXPONENTIAL:
        return -dist->a * log(1 - wr_rng_unit(rng));
    case WEIR_DIST_NORMAL:
        return fabs(dist->a + dist->b * wr_dist_normal(rng));
    case WEIR_DIST_LOGNORMAL:
        return dist->a * exp(dist->b * wr_dist_normal(rng));
    case WEIR_DIST_PARETO:
        return draw_pareto(dist, rng);
    case WEIR_DIST_HISTOGRAM:
        return draw_histogram(dist, rng);
    default:
        return dist->a;
    }
}

uint64_t wr_dist_draw(const weir_dist *dist, struct wr_rng *rng)
{
    double seconds = draw_seconds(dist, rng);
    return (uint64_t)((seconds < most_seconds ? seconds : most_seconds) * 1e9);
}
