"""What a benchmark is: its options, its result, and the record that is kept of it."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["Benchmark", "RunBenchmark"],
        "errors": ["BenchmarkError", "LinuxOnly", "NoSuchMeasurement", "NothingToChoose", "ResultNotWritten", "RunsAreFixed"],
        "options": ["FP32", "LEAST_RUNS", "PRECISIONS", "Options", "Runs", "Scale"],
        "record": ["Record", "read_record", "run_benchmark"],
        "result": ["Cell", "Column", "Plot", "Result", "Series", "Style", "Table", "Unit"],
    },
)
