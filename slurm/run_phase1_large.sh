#!/bin/bash
# Workers for phase 1, large models, for people who submit their own sbatch scripts:
#
#   sbatch slurm/run_phase1_large.sh
#
# Each task of the array joins the experiment as one more worker, and takes runs that nobody
# has done. Which task it is does not matter: use as many as you like, submit again at any
# time, and cancel any of them. A task takes runs of the models that fit what it was given: the
# largest of this phase takes four GPUs in slurm/example.yaml, the others less.
# What follows the script's name goes to `vendomini run`.
#SBATCH --job-name=vendomini-phase1-large
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=32
#SBATCH --mem=240G
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append

# Slurm copies the script elsewhere, so it is the folder of submission that counts.
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2

# Load modules or activate an environment here, if `vendomini` is not on PATH without.

# `exec`: Slurm's signals go to the worker itself, which then leaves in good order, and its
# exit status is the job's.
exec vendomini run phase1_large_models \
  --cluster \
  --profile "${VENDOMINI_PROFILE:-example}" \
  "$@"
