/* k-means over handwritten digits, the points spread over the ranks.
 *
 *   fmi run -n 4 -- ./kmeans examples/data/digits.csv 10
 *
 * Rank 0 reads the file and scatters the points. In every iteration each rank
 * assigns its own points to the nearest centroid and adds them up; one
 * allreduce makes the sums of all ranks known to all, and from these each rank
 * derives the same new centroids. It ends when no point changes its cluster.
 *
 * The result does not depend on the number of ranks, down to the last bit:
 * pixels are integers, so everything that is summed across ranks is summed
 * exactly, in 64-bit integers, and the first rounding comes after the
 * allreduce, in the same place on every rank.
 */
#define _POSIX_C_SOURCE 200809L
#include <fmi.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIXELS = 64, LABELS = 10, MAX_CLUSTERS = 256, MAX_ITERATIONS = 1000 };

/* Bytes only: no padding, so an array of points can be sent as it stands. */
struct point {
    uint8_t pixel[PIXELS];
    int8_t label; /* the digit that was written, or NO_POINT */
};
enum { NO_POINT = -1 };

/* What each rank reports at the end. */
struct report {
    double seconds; /* spent inside FMI */
    uint64_t hash;  /* of its centroids */
};

static fmi_comm *comm;
static double fmi_seconds;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The message of this thread's last failure is there also when there is no
 * communicator, because making it was what failed. */
static void check(fmi_status status, const char *call)
{
    if (status == FMI_OK)
        return;
    char message[512];
    fmi_last_error_message(message, sizeof message);
    fprintf(stderr, "kmeans: %s: %s\n", call, message);
    exit(1);
}

/* Makes an FMI call, ends the program if it fails, and counts its time. */
#define FMI(call)                     \
    do {                              \
        double start = now();         \
        check((call), #call);         \
        fmi_seconds += now() - start; \
    } while (0)

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        fprintf(stderr, "kmeans: out of memory\n");
        exit(1);
    }
    return memory;
}

/* Reads lines of 64 pixels and a label. Returns the number of points, 0 if the
 * file cannot be read or is malformed. */
static uint64_t read_points(const char *path, struct point **out)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return 0;
    }
    uint64_t count = 0, room = 0;
    struct point *points = NULL;
    for (int value; fscanf(file, "%d", &value) == 1; count++) {
        if (count == room) {
            room = room ? 2 * room : 1024;
            points = realloc(points, room * sizeof *points);
            if (!points)
                break;
        }
        for (size_t i = 0; i < PIXELS; i++) {
            points[count].pixel[i] = (uint8_t)value;
            if (value < 0 || value > 255 || fscanf(file, ",%d", &value) != 1)
                goto malformed;
        }
        if (value < 0 || value >= LABELS)
            goto malformed;
        points[count].label = (int8_t)value;
    }
    if (points && feof(file)) {
        fclose(file);
        *out = points;
        return count;
    }
malformed:
    fprintf(stderr, "%s: line %" PRIu64 " is not %d pixels and a label\n", path, count + 1, PIXELS);
    free(points);
    fclose(file);
    return 0;
}

static double distance(const struct point *point, const double *centroid)
{
    double sum = 0;
    for (size_t i = 0; i < PIXELS; i++) {
        double d = point->pixel[i] - centroid[i];
        sum += d * d;
    }
    return sum;
}

/* The first point, then again and again the point that is farthest from all
 * that were chosen before: spread out, and the same in every run. */
static void choose_centroids(const struct point *points, uint64_t n, uint64_t k, double *centroids)
{
    double *nearest = allocate(n, sizeof *nearest);
    uint64_t chosen = 0;
    for (uint64_t c = 0; c < k; c++) {
        for (size_t i = 0; i < PIXELS; i++)
            centroids[c * PIXELS + i] = points[chosen].pixel[i];
        for (uint64_t p = 0; p < n; p++) {
            double d = distance(&points[p], &centroids[c * PIXELS]);
            if (c == 0 || d < nearest[p])
                nearest[p] = d;
        }
        for (uint64_t p = 0; p < n; p++)
            if (nearest[p] > nearest[chosen])
                chosen = p;
    }
    free(nearest);
}

/* The cluster of a point; of equally near ones the first. */
static uint64_t nearest_centroid(const struct point *point, const double *centroids, uint64_t k)
{
    uint64_t best = 0;
    double best_distance = distance(point, centroids);
    for (uint64_t c = 1; c < k; c++) {
        double d = distance(point, &centroids[c * PIXELS]);
        if (d < best_distance) {
            best = c;
            best_distance = d;
        }
    }
    return best;
}

static uint64_t fnv1a(const void *data, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
    return hash;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "examples/data/digits.csv";
    uint32_t rank, size;
    FMI(fmi_comm_create_from_env("kmeans", &comm));
    FMI(fmi_comm_rank(comm, &rank));
    FMI(fmi_comm_size(comm, &size));

    /* Rank 0 tells the shape: the number of points and of clusters. No points
     * means that it could not read them, and has said why. */
    struct point *all = NULL;
    uint64_t shape[2] = {0, argc > 2 ? strtoull(argv[2], NULL, 10) : 10};
    if (rank == 0)
        shape[0] = read_points(path, &all);
    FMI(fmi_bcast(comm, shape, sizeof shape, 0));
    const uint64_t n = shape[0], k = shape[1];
    if (n == 0 || k == 0 || k > n || k > MAX_CLUSTERS) {
        if (rank == 0 && n > 0)
            fprintf(stderr, "kmeans: cannot make %" PRIu64 " clusters of %" PRIu64 " points\n", k, n);
        return 1;
    }

    /* Scatter gives every rank a block of the same length. The points seldom
     * divide evenly: the last blocks are filled up with records that are
     * marked as no points, and are passed over by all that follows. */
    const uint64_t block = (n + size - 1) / size;
    const uint64_t padded = block * size;
    struct point *points = allocate(block, sizeof *points), *blocks = NULL;
    double *centroids = allocate(k * PIXELS, sizeof *centroids);
    if (rank == 0) {
        choose_centroids(all, n, k, centroids);
        blocks = allocate(padded, sizeof *blocks);
        memcpy(blocks, all, n * sizeof *all);
        for (uint64_t p = n; p < padded; p++)
            blocks[p].label = NO_POINT;
        free(all);
    }
    FMI(fmi_scatter(comm, blocks, padded * sizeof *blocks, points, block * sizeof *points, 0));
    FMI(fmi_bcast(comm, centroids, k * PIXELS * sizeof *centroids, 0));
    free(blocks);

    /* All that ranks tell each other in an iteration lies in one buffer, so
     * that one allreduce carries it. */
    const size_t total = k * PIXELS + k + 2;
    int64_t *totals = allocate(total, sizeof *totals);
    int64_t *sums = totals;                /* per cluster and pixel */
    int64_t *counts = sums + k * PIXELS;   /* points per cluster */
    int64_t *squares = counts + k;         /* sum of |point|^2 */
    int64_t *changes = squares + 1;        /* points that changed their cluster */
    uint64_t *cluster = allocate(block, sizeof *cluster);
    for (uint64_t p = 0; p < block; p++)
        cluster[p] = k; /* none yet: the first assignment is a change */

    for (int iteration = 1; iteration <= MAX_ITERATIONS; iteration++) {
        memset(totals, 0, total * sizeof *totals);
        for (uint64_t p = 0; p < block; p++) {
            if (points[p].label == NO_POINT)
                continue;
            uint64_t c = nearest_centroid(&points[p], centroids, k);
            *changes += c != cluster[p];
            cluster[p] = c;
            counts[c]++;
            for (size_t i = 0; i < PIXELS; i++) {
                sums[c * PIXELS + i] += points[p].pixel[i];
                *squares += points[p].pixel[i] * points[p].pixel[i];
            }
        }
        FMI(fmi_allreduce(comm, totals, totals, total, FMI_INT64, FMI_SUM));
        if (*changes == 0)
            break;

        /* The inertia, the squared distance of all points to the mean of their
         * cluster, is sum |x|^2 - sum |S_c|^2 / n_c: exact sums on the right.
         * A cluster without points keeps its centroid. */
        double inertia = (double)*squares;
        for (uint64_t c = 0; c < k; c++) {
            for (size_t i = 0; i < PIXELS && counts[c]; i++) {
                double sum = (double)sums[c * PIXELS + i];
                inertia -= sum * sum / (double)counts[c];
                centroids[c * PIXELS + i] = sum / (double)counts[c];
            }
        }
        if (rank == 0)
            printf("iteration %2d: inertia %.6f, %" PRId64 " points changed\n", iteration, inertia, *changes);
    }

    /* How well the clusters, found without the labels, agree with them: each
     * cluster stands for the label that most of its points have. */
    int64_t *votes = allocate(k * LABELS, sizeof *votes);
    for (uint64_t p = 0; p < block; p++)
        if (points[p].label != NO_POINT)
            votes[cluster[p] * LABELS + (size_t)points[p].label]++;
    FMI(fmi_reduce(comm, votes, votes, k * LABELS, FMI_INT64, FMI_SUM, 0));

    struct report mine = {fmi_seconds, fnv1a(centroids, k * PIXELS * sizeof *centroids)};
    struct report *reports = allocate(size, sizeof *reports);
    FMI(fmi_gather(comm, &mine, sizeof mine, reports, size * sizeof mine, 0));

    int failed = 0;
    if (rank == 0) {
        int64_t agreeing = 0;
        for (uint64_t c = 0; c < k; c++) {
            int64_t most = 0;
            for (size_t label = 0; label < LABELS; label++)
                if (votes[c * LABELS + label] > most)
                    most = votes[c * LABELS + label];
            agreeing += most;
        }
        printf("label agreement: %.6f (%" PRId64 " of %" PRIu64 ")\n", (double)agreeing / (double)n, agreeing, n);
        printf("centroids: %016" PRIx64 "\n", mine.hash);
        for (uint32_t r = 0; r < size; r++) {
            printf("rank %" PRIu32 ": %.3f ms in FMI\n", r, reports[r].seconds * 1e3);
            if (reports[r].hash != mine.hash) {
                fprintf(stderr, "kmeans: rank %" PRIu32 " has other centroids\n", r);
                failed = 1;
            }
        }
    }
    free(reports);
    free(votes);
    free(cluster);
    free(totals);
    free(centroids);
    free(points);
    fmi_comm_destroy(comm);
    return failed;
}
