// What ThreadSanitizer cannot know of libraries that a distribution compiled without it.
//
// oneDNN keeps a cache of primitives that all threads share, under locks of its own; it calls
// nothing of ours. Copies of an absl::Status on several threads share what they say and count
// themselves in Abseil's compiled part: the last one's end is no race with an earlier reading.
extern "C" const char* __tsan_default_suppressions() {
  return "race:libdnnl.so\n"
         "race:status_internal\n"
         "race:Status::Unref\n";
}
