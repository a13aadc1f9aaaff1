std = "lua54+luajit"
max_line_length = 110
exclude_files = { "build/**" }
files["tests/**"] = { globals = { "Test*", "test*" } }
