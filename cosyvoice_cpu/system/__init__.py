"""What machine and operating system give: threads, memory, caches."""
