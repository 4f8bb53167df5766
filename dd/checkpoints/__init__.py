"""Where weights come from: the index of the zoo, the hub, safe reading, teachers and students as folders."""
